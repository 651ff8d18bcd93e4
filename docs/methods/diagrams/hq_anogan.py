"""HQ-AnoGAN: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source, store

IMAGE, STYLES = "1×256×256", "14×512"


def panels() -> list[Panel]:
    gan = {
        "z": source("z", (0, 0), "~ N(0, I)"),
        "G": net("generator", (1.05, 0), "generator", "mapping, synthesis", width=124),
        "ADA": source("ADA", (2.2, 0), "both alike"),
        "D": net("discriminator", (3.1, 0), "discriminator", "D", width=104),
        "x": source("x", (2.2, 1), "normal"),
        "d": loss("D’s loss", (4.25, 0), "logistic + R1"),
        "g": loss("G’s loss", (4.1, 1), "logistic + path length"),
    }
    drawn = [
        Arrow("z", "G", shape="512"),
        Arrow("G", "ADA", "x̃"),
        Arrow("x", "ADA", leave="top", enter="bottom"),
        Arrow("ADA", "D"),
        Arrow("D", "d", shift=(-7, -7)),
        Arrow("D", "g", shift=(9, 0), lane=3.62),
    ]
    inverted = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (1.15, 0), "encoder", "pSp"),
        "G": net("averaged G", (2.35, 0), "averages", "noise constant", frozen=True, width=104),
        "loss": loss("distance", (3.9, 0), "L₂ + LPIPS + ‖w − w̄‖"),
    }
    encoded = [Arrow("x", "E", shape=IMAGE), Arrow("E", "G", "w", STYLES), Arrow("G", "loss", "x̂")]
    kept = {**inverted, "E": net("encoder", (1.15, 0), "encoder", "pSp", frozen=True)}
    gather = {
        **{key: node for key, node in kept.items() if key != "loss"},
        "bank": store("codes, distances", (3.3, 0), "of normals", width=118),
        "normality": net("normal styles", (4.27, 0), "normality", "axes, deviations", width=112),
    }
    gathered = [*encoded[:2], Arrow("G", "bank"), Arrow("bank", "normality")]
    scoring = {
        **freeze(kept),
        "x": source("x", (0, 0)),
        "again": net("encoder", (2.35, 1), "encoder", "ŵ = E(x̂)"),
        "loss": net("normal styles", (3.35, 0), "normality", "in deviations", width=112),
        "score": output("score", (4.25, 0), "sum of two"),
        "map": output("map", (4.12, 1), "|x − x̂| − normals’"),
    }
    ends = [
        *encoded[:2],
        Arrow("G", "again", "x̂", leave="bottom", enter="top"),
        Arrow("G", "loss"),
        Arrow("again", "loss", "w − ŵ", leave="right", enter="bottom", shift=(0, -10)),
        Arrow("loss", "score"),
        Arrow("loss", "map", leave="bottom", enter="left", shift=(20, 0)),
    ]
    return [
        Panel("gan", "StyleGAN2-ADA learns to draw normals", gan, drawn),
        Panel("encoder", "the encoder inverts the averaged generator", inverted, encoded),
        Panel("gather", "what is normal is measured", gather, gathered),
        Panel("", "two passes of the encoder", freeze(scoring), ends),
    ]
