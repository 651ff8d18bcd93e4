"""AnoGAN: what flows where."""

from drawing import Arrow, Node, Panel, freeze, loss, net, output, source
from panels import LARGE, gan_and_discriminator


def panels() -> list[Panel]:
    nodes = {
        "z": Node("tensor", "z", (0, 0), "moves", width=40),
        "G": net("generator", (1, 0), "generator", "G"),
        "D": net("discriminator", (2.2, 0.5), "discriminator", "features f", width=104),
        "x": source("x", (1, 1)),
        "loss": loss("distance", (3.7, 0.5), ".9 Σ|x − G(z)| + .1 Σ|f(x) − f(G(z))|"),
        "score": output("score", (3.15, 1.45), "least distance"),
        "map": output("map", (4.25, 1.45), "|x − G(z)|"),
    }
    arrows = [
        Arrow("z", "G", shape="100"),
        Arrow("G", "D", "G(z)", lane=1.62, shift=(0, -8), segment=0),
        Arrow("x", "D", shape=LARGE, lane=1.62, shift=(0, 8), segment=0),
        Arrow("D", "loss"),
        Arrow("loss", "z", "200 Adam steps on z alone", leave="top", enter="top", lane=-0.5, dashed=True),
        Arrow("loss", "score", leave="bottom", enter="top", lane=1.02),
        Arrow("loss", "map", leave="bottom", enter="top", lane=1.02),
    ]
    return [gan_and_discriminator(LARGE, 100), Panel("", "a search for z, image by image", freeze(nodes), arrows)]
