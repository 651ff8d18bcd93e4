"""Autoencoder and VAE: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source
from panels import LARGE


def panels() -> list[Panel]:
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (1, 0), "autoencoder", "4 conv, 2 dense"),
        "D": net("decoder", (2.2, 0), "autoencoder", "2 dense, 4 conv"),
        "error": loss("error", (3.7, 0), "mean (x − x̂)²"),
        "kl": loss("VAE: + .005 · KL", (2.2, 1), "N(μ, σ²) from N(0, I)"),
    }
    arrows = [
        Arrow("x", "E", shape=LARGE),
        Arrow("E", "D", "z", "16"),
        Arrow("D", "error", "x̂", LARGE),
        Arrow("E", "kl", "μ, log σ²", leave="bottom", enter="left", segment=1),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "E": nodes["E"],
        "D": nodes["D"],
        "map": output("map", (3.35, 0), "(x − x̂)²"),
        "score": output("score", (4.3, 0), "its mean"),
    }
    flow = [Arrow("x", "E", shape=LARGE), Arrow("E", "D", "z", "16"), Arrow("D", "map", "x̂"), Arrow("map", "score")]
    return [
        Panel("reconstruction", "encoder and decoder as one", nodes, arrows),
        Panel("", "one pass; a VAE’s z is its mean", freeze(scoring), flow),
    ]
