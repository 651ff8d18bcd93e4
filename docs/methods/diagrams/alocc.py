"""ALOCC: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source
from panels import LARGE


def panels() -> list[Panel]:
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "noise": source("noise", (0, 1), "N(0, .155²)"),
        "R": net("reconstructor", (1.15, 0), "reconstructor", "R", width=104),
        "D": net("discriminator", (2.35, 0), "discriminator", "D", width=104),
        "d": loss("discriminator loss", (3.85, 0), "−log D(x) − log(1 − D(R(x̃)))"),
        "r": loss("reconstructor loss", (3.85, 1), "−log D(R(x̃)) + .4 (x − R(x̃))²"),
    }
    arrows = [
        Arrow("x", "R", "x̃", LARGE),
        Arrow("noise", "R", leave="right", enter="bottom"),
        Arrow("R", "D", "R(x̃)", shape=LARGE),
        Arrow("x", "D", "x", leave="top", enter="top", lane=-0.5),
        Arrow("D", "d", shift=(-7, -7)),
        Arrow("D", "r", shift=(9, 0), lane=2.82),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "R": nodes["R"],
        "D": nodes["D"],
        "score": output("score", (3.7, 0), "−logit D(R(x))"),
        "map": output("map", (3.7, 0.75), "|x − R(x)|"),
    }
    flow = [
        Arrow("x", "R", shape=LARGE),
        Arrow("R", "D", "R(x)", shape=LARGE),
        Arrow("D", "score"),
        Arrow("R", "map", leave="bottom", enter="left"),
    ]
    return [
        Panel("gan", "R cleans, D compares; both freeze once R is good enough", nodes, arrows),
        Panel("", "one pass, no noise", freeze(scoring), flow),
    ]
