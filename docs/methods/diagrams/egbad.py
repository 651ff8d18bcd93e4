"""EGBAD: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source
from panels import SMALL


def panels() -> list[Panel]:
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (1, 0), "encoder", "E"),
        "z": source("z", (0, 1), "~ N(0, I)"),
        "G": net("generator", (1, 1), "generator", "G"),
        "D": net("discriminator", (2.35, 0.5), "discriminator", "D(image, code)", width=104),
        "d": loss("discriminator loss", (3.7, -0.15), "−log D(x, E(x)) − log(1 − D(G(z), z))"),
        "e": loss("encoder loss", (3.7, 0.5), "−log(1 − D(x, E(x)))"),
        "g": loss("generator loss", (3.7, 1.15), "−log D(G(z), z)"),
    }
    arrows = [
        Arrow("x", "E", shape=SMALL),
        Arrow("z", "G", shape="200"),
        Arrow("E", "D", "x, E(x)", lane=1.75, shift=(0, -8), segment=0),
        Arrow("G", "D", "G(z), z", lane=1.75, shift=(0, 8), segment=0),
        Arrow("D", "d", leave="top", enter="left"),
        Arrow("D", "e"),
        Arrow("D", "g", leave="bottom", enter="left"),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "E": nodes["E"],
        "G": net("generator", (2, 0), "generator", "G"),
        "D": net("discriminator", (2.95, 0.9), "discriminator", "features f", width=104),
        "score": output("score", (4.02, 0.9), ".9‖x − x̂‖₁ + .1‖f − f̂‖₁"),
        "map": output("map", (4.1, 0), "|x − x̂|"),
    }
    flow = [
        Arrow("x", "E", shape=SMALL),
        Arrow("E", "G", "z", "200"),
        Arrow("G", "map", "x̂", segment=0),
        Arrow("G", "D", leave="bottom", enter="left", shift=(0, -14)),
        Arrow("E", "D", "z", leave="bottom", enter="left", shift=(0, 0)),
        Arrow("x", "D", "x", leave="bottom", enter="left", shift=(0, 14)),
        Arrow("D", "score"),
    ]
    return [
        Panel("gan", "D tells pairs apart, E and G make them alike", nodes, arrows),
        Panel("", "one pass through moving averages of all three", freeze(scoring), flow),
    ]
