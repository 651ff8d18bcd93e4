"""Classifier: what flows where."""

from drawing import Arrow, Panel, freeze, loss, net, output, source


def panels() -> list[Panel]:
    flow = {
        "x": source("x", (0, 0), "with its label"),
        "stages": net("backbone", (1.3, 0), "classifier", "normalised input", width=112),
        "head": net("head", (2.6, 0), "classifier", "mean, linear"),
    }
    arrows = [
        Arrow("x", "stages", shape="3×224×224"),
        Arrow("stages", "head", shape="2048×7×7"),
    ]
    training = {**flow, "loss": loss("cross-entropy", (4.1, 0), "−log p(class)")}
    scoring = {
        **freeze({**flow, "x": source("x", (0, 0))}),
        "score": output("score", (4.1, 0), "1 − P(normal)"),
        "map": output("map", (4.1, 1), "class activation"),
    }
    ends = [
        Arrow("head", "score", "logits", "2"),
        Arrow("stages", "map", shape="weighed by the head", leave="bottom", enter="left"),
    ]
    return [
        Panel(
            "classifier", "labelled normals and anomalies", training, [*arrows, Arrow("head", "loss", "logits", "2")]
        ),
        Panel("", "one pass; the most probable anomalous class is mapped", scoring, arrows + ends),
    ]
