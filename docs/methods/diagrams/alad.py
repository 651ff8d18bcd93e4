"""ALAD: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source
from panels import SMALL


def panels() -> list[Panel]:
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (0.95, 0), "encoder", "E"),
        "G2": net("generator", (2.03, 0), "generator", "G"),
        "z": source("z", (0, 2), "~ N(0, I)"),
        "G": net("generator", (0.95, 2), "generator", "G"),
        "E2": net("encoder", (2.03, 2), "encoder", "E"),
        "xx": net("D_xx", (3.07, 0), "discriminators", "two images", width=84),
        "xz": net("D_xz", (3.07, 1), "discriminators", "image, code", width=84),
        "zz": net("D_zz", (3.07, 2), "discriminators", "two codes", width=84),
        "images": loss("images", (4.1, 0), "(x, x) or (x, x̂)?"),
        "pairs": loss("pairs", (4.1, 1), "(x, E(x)) or (G(z), z)?"),
        "codes": loss("codes", (4.1, 2), "(z, z) or (z, ẑ)?"),
    }
    arrows = [
        Arrow("x", "E", shape=SMALL),
        Arrow("E", "G2", "E(x)", "100"),
        Arrow("G2", "xx", "x̂", SMALL),
        Arrow("z", "G", shape="100"),
        Arrow("G", "E2", "G(z)", SMALL),
        Arrow("E2", "zz", "ẑ", "100"),
        Arrow("E", "xz", "x, E(x)", leave="bottom", enter="left", shift=(0, -8), segment=1),
        Arrow("G", "xz", leave="top", enter="left", shift=(0, 8), segment=1, shape="G(z), z"),
        *(Arrow(a, b) for a, b in (("xx", "images"), ("xz", "pairs"), ("zz", "codes"))),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "E": net("encoder", (1, 0), "encoder", "E"),
        "G": net("generator", (2, 0), "generator", "G"),
        "xx": net("D_xx", (2.9, 0.75), "discriminators", "features f"),
        "score": output("score", (4.1, 0.75), "‖f(x, x) − f(x, x̂)‖₁"),
        "map": output("map", (4.1, 0), "|x − x̂|"),
    }
    flow = [
        Arrow("x", "E", shape=SMALL),
        Arrow("E", "G", "z", "100"),
        Arrow("G", "map", "x̂"),
        Arrow("G", "xx", leave="bottom", enter="left", shift=(0, -6)),
        Arrow("x", "xx", "x", leave="bottom", enter="left", shift=(0, 8), segment=1),
        Arrow("xx", "score"),
    ]
    return [
        Panel("gan", "three games of cross-entropy", nodes, arrows),
        Panel("", "one pass through moving averages", freeze(scoring), flow),
    ]
