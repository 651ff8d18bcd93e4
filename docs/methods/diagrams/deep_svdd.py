"""Deep SVDD: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source
from panels import SMALL


def panels() -> list[Panel]:
    x, fixed = source("x", (0, 0), "normal"), net("contrast", (1, 0), "contrast", "to [0, 1]", frozen=True)
    first = Arrow("x", "contrast", shape=SMALL)
    code = [first, Arrow("contrast", "phi", shape=SMALL), Arrow("phi", "sphere", "code", "32")]
    phi = net("encoder", (2.08, 0), "encoder", "φ")
    sphere = net("sphere", (3.08, 0), "sphere", "c, R", frozen=True)
    pretrain = {
        "x": x,
        "contrast": fixed,
        "A": net("autoencoder", (2.2, 0), "autoencoder", "φ and decoder", width=104),
        "loss": loss("error", (3.7, 0), "Σ (x − x̂)²"),
    }
    centre = {
        "x": x,
        "contrast": fixed,
        "phi": net("encoder", (2.2, 0), "encoder", "φ, only applied"),
        "sphere": net("sphere", (3.7, 0), "sphere", "centre c"),
    }
    drawn = {
        "x": x,
        "contrast": fixed,
        "phi": phi,
        "sphere": sphere,
        "end": loss("distance", (4.15, 0), "mean |φ(x) − c|²"),
    }
    scoring = {**drawn, "x": source("x", (0, 0)), "end": output("score", (4.15, 0), "|φ(x) − c|² − R²")}
    measured = {"x": x, "contrast": net("contrast", (1, 0), "contrast", "mean, scale")}
    learnt = [first, Arrow("contrast", "A", shape=SMALL), Arrow("A", "loss", "x̂", SMALL)]
    return [
        Panel("contrast", "the range of the normals is measured", measured, [first]),
        Panel("pretrain", "an autoencoder, with weight decay", pretrain, learnt),
        Panel("centre", "φ takes the autoencoder’s weights, its mean code becomes c", centre, code),
        Panel("sphere", "φ draws the codes to c", drawn, [*code, Arrow("sphere", "end")]),
        Panel("", "one pass", freeze(scoring), [*code, Arrow("sphere", "end")]),
    ]
