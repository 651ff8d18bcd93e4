"""PCA: what flows where."""

from drawing import Arrow, Panel, freeze, net, output, source, store
from panels import LARGE


def panels() -> list[Panel]:
    gather = {
        "x": source("x", (0, 0), "1 000 normals"),
        "bank": store("bank", (1.6, 0), "1 000 × 4096", width=104),
        "S": net("subspace", (3.2, 0), "subspace", "mean, 32 axes", width=124),
    }
    scoring = {
        "x": source("x", (0, 0)),
        "S": net("subspace", (1.4, 0), "subspace", "mean, 32 axes", width=124),
        "map": output("map", (3.0, 0), "|r|"),
        "score": output("score", (4.1, 0), "mean r²"),
    }
    flow = [Arrow("x", "S", "b", LARGE), Arrow("S", "map", "r", LARGE), Arrow("map", "score")]
    return [
        Panel(
            "gather",
            "blurred normals are kept, axes come at the end",
            gather,
            [Arrow("x", "bank", "b", LARGE), Arrow("bank", "S", "at the end")],
        ),
        Panel("", "what the axes leave of the blurred image", freeze(scoring), flow),
    ]
