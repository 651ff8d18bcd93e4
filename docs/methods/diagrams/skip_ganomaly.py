"""Skip-GANomaly: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source
from panels import LARGE


def panels() -> list[Panel]:
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "U": net("U-Net", (1.2, 0), "reconstructor", "G, 5 skips"),
        "pixel": loss("50 · pixel", (2.6, 0), "mean |x − x̂|"),
        "D": net("discriminator", (2.6, 0.85), "discriminator", "D, features f", width=104),
        "lat": loss("latent, for both", (4.0, 0.1), "mean (f(x) − f(x̂))²"),
        "g": loss("adversarial, for G", (4.0, 0.85), "−log D(x̂)"),
        "d": loss("discriminator loss", (4.0, 1.6), "−log D(x) − log(1 − D(x̂))"),
    }
    arrows = [
        Arrow("x", "U", shape=LARGE),
        Arrow("U", "pixel", "x̂"),
        Arrow("U", "D", leave="bottom", enter="left", shift=(0, -8), name="x̂", segment=1),
        Arrow("x", "D", "x", leave="bottom", enter="left", shift=(0, 8), segment=1),
        Arrow("D", "lat", lane=3.2, shift=(-7, 0)),
        Arrow("D", "g"),
        Arrow("D", "d", leave="bottom", enter="left"),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "U": net("U-Net", (1.2, 0), "reconstructor", "G"),
        "D": net("discriminator", (2.6, 0.7), "discriminator", "features f", width=104),
        "score": output("score", (3.95, 0.7), ".9 (x − x̂)² + .1 (f − f̂)²"),
        "map": output("map", (3.95, 0), "|x − x̂|"),
    }
    flow = [
        Arrow("x", "U", shape=LARGE),
        Arrow("U", "map", "x̂"),
        Arrow("U", "D", leave="bottom", enter="left", shift=(0, -6)),
        Arrow("x", "D", "x", leave="bottom", enter="left", shift=(0, 8), segment=1),
        Arrow("D", "score", "f, f̂", "100"),
    ]
    return [
        Panel("gan", "the U-Net, then D", nodes, arrows),
        Panel("", "one pass", freeze(scoring), flow),
    ]
