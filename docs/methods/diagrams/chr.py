"""CHR: what flows where."""

from drawing import Arrow, Node, Panel, freeze, loss, net, output, source


def nodes() -> dict[str, Node]:
    return {
        "x": source("x", (0.04, 1), "labelled"),
        "stages": net("backbone", (1.15, 1), "classifier", "ResNet-101"),
        "one": net("head 1", (2.65, 0), "classifier", "conv, mean", width=104),
        "two": net("head 2", (2.65, 1), "classifier", "beside C5", width=104),
        "three": net("head 3", (2.65, 2), "classifier", "beside head 2", width=104),
    }


ARROWS = [
    Arrow("x", "stages", shape="3×224×224"),
    Arrow("stages", "one", "C5", "2048×7×7", leave="top"),
    Arrow("stages", "two", "C4", "1024×14×14"),
    Arrow("stages", "three", "C3", "512×28×28", leave="bottom"),
    Arrow("one", "two", shape="C5 enlarged", leave="bottom", enter="top"),
    Arrow("two", "three", shape="enlarged", leave="bottom", enter="top"),
]


def panels() -> list[Panel]:
    training = {**nodes(), "loss": loss("cross-entropy", (4.1, 1), "Σ₃ heads, masked")}
    logits = [
        Arrow("one", "loss", "logits", lane=3.3, segment=0),
        Arrow("two", "loss"),
        Arrow("three", "loss", "logits", lane=3.3, segment=0),
    ]
    scoring = {
        **freeze({**nodes(), "x": source("x", (0.04, 1))}),
        "score": output("score", (4.15, 0), "highest probability"),
        "map": output("map", (4.15, 1), "class activation"),
    }
    ends = [Arrow("one", "score", "logits"), Arrow("one", "map", lane=3.3, shift=(12, 0))]
    return [
        Panel(
            "classifier", "deep maps are laid beside shallow ones; all three are classified", training, ARROWS + logits
        ),
        Panel("", "one pass; the first head decides", scoring, ARROWS + ends),
    ]
