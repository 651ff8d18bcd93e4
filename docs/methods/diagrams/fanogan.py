"""f-AnoGAN: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source
from panels import LARGE, wgan_gan


def panels() -> list[Panel]:
    flow = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (1, 0), "encoder", "E"),
        "G": net("generator", (2, 0), "generator", "G", frozen=True),
        "C": net("critic", (2.85, 0.5), "critic", "features f", frozen=True),
    }
    arrows = [
        Arrow("x", "E", shape=LARGE),
        Arrow("E", "G", "z", "128"),
        Arrow("G", "C", "x̂", lane=2.42, shift=(0, -8), segment=0),
        Arrow("x", "C", shape=LARGE, leave="bottom", enter="left", shift=(0, 8), segment=1),
    ]
    training = {
        **flow,
        "pixel": loss("pixel", (4.15, -0.35), "mean (x − x̂)²"),
        "feature": loss("κ · feature", (4.15, 0.5), "mean (f(x) − f(x̂))²"),
    }
    last = [
        Arrow("G", "pixel", leave="top", enter="left"),
        Arrow("C", "feature", shape="8192"),
    ]
    scoring = {
        **freeze({**flow, "x": source("x", (0, 0))}),
        "score": output("score", (4.1, 0.5), "pixel + κ · feature"),
        "map": output("map", (4.1, -0.35), "|x − x̂|"),
    }
    ends = [Arrow("G", "map", leave="top", enter="left"), Arrow("C", "score")]
    return [
        wgan_gan(LARGE, 128),
        Panel("encoder", "image → z → image, generator and critic frozen", training, arrows + last),
        Panel("", "one pass", scoring, arrows + ends),
    ]
