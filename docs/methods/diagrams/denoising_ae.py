"""Denoising autoencoder: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source


def panels() -> list[Panel]:
    shape = "1×128×128"
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "noise": source("noise", (0, 1), "16×16, enlarged"),
        "U": net("U-Net", (1.6, 0), "unet", "4 levels"),
        "loss": loss("error", (3.6, 0), "mean m (x̂ − x)²"),
    }
    arrows = [
        Arrow("x", "U", shape=shape),
        Arrow("noise", "U", "+", lane=0.9, shift=(0, 12)),
        Arrow("U", "loss", "x̂", shape),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "U": net("U-Net", (1.4, 0), "unet", "4 levels"),
        "map": output("map", (3.0, 0), "|x − x̂|, median"),
        "score": output("score", (4.2, 0), "its mean"),
    }
    flow = [Arrow("x", "U", shape=shape), Arrow("U", "map", "x̂"), Arrow("map", "score")]
    return [
        Panel("denoising", "coarse noise is to be removed", nodes, arrows),
        Panel("", "one pass, without noise", freeze(scoring), flow),
    ]
