"""GANomaly: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source
from panels import LARGE


def panels() -> list[Panel]:
    flow = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (0.9, 0), "reconstructor", "G_E"),
        "Dec": net("decoder", (1.86, 0), "reconstructor", "G_D"),
        "E2": net("2nd encoder", (2.98, 0), "reconstructor", "E"),
    }
    arrows = [
        Arrow("x", "E", shape=LARGE),
        Arrow("E", "Dec", "z", "100"),
        Arrow("Dec", "E2", "x̂", LARGE),
    ]
    training = {
        **flow,
        "latent": loss("latent", (4.15, 0), "mean (z − ẑ)²"),
        "pixel": loss("50 · pixel", (1.86, 1.9), "mean |x − x̂|"),
        "D": net("discriminator", (3, 1), "discriminator", "D, features f", width=104),
        "adv": loss("adversarial", (4.12, 1), "mean (f(x) − f(x̂))²"),
        "d": loss("discriminator loss", (3.87, 1.9), "½ (−log D(x) − log(1 − D(x̂)))"),
    }
    more = [
        Arrow("E2", "latent", "ẑ"),
        Arrow("E", "latent", leave="top", enter="top", lane=-0.5, name="z", segment=1),
        Arrow("Dec", "D", "x̂", leave="bottom", enter="left", shift=(0, -8), segment=1),
        Arrow("x", "D", "x", leave="bottom", enter="left", shift=(0, 8), segment=1),
        Arrow("Dec", "pixel", leave="bottom", enter="top"),
        Arrow("x", "pixel", leave="bottom", enter="left"),
        Arrow("D", "adv"),
        Arrow("D", "d", leave="bottom", enter="left"),
    ]
    scoring = {
        **freeze({**flow, "x": source("x", (0, 0))}),
        "score": output("score", (4.2, 0), "mean (z − ẑ)²"),
        "map": output("map", (3, 0.8), "|x − x̂|"),
    }
    ends = [
        Arrow("E2", "score", "ẑ"),
        Arrow("E", "score", leave="top", enter="top", lane=-0.5, name="z", segment=1),
        Arrow("Dec", "map", leave="bottom", enter="left"),
    ]
    return [
        Panel("gan", "the reconstructor, then D", training, arrows + more),
        Panel("", "one pass, without D", scoring, arrows + ends),
    ]
