"""SVM on the fake pool: what flows where."""

from drawing import Arrow, Panel, freeze, net, output, source, store
from panels import SMALL, wgan_gan


def panels() -> list[Panel]:
    nodes = {
        "x": source("x", (0, 0), "10 000 normals"),
        "pool": store("fake pool", (0.05, 1), "as many"),
        "pixels": net("pixels", (1.3, 0), "features", "to [0, 1]", frozen=True),
        "bank": store("feature bank", (2.45, 0), "20 000 × 1024", width=104),
        "svm": net("SVM", (3.75, 0), "machine", "RBF, C = 1"),
    }
    arrows = [
        Arrow("x", "pixels", shape=SMALL),
        Arrow("pool", "pixels", "x̃", leave="right", enter="bottom"),
        Arrow("pixels", "bank", shape="1024"),
        Arrow("bank", "svm", "at the end", leave="right"),
    ]
    machine = net("SVM", (2.2, 0), "machine", "decision")
    scoring = {
        "x": source("x", (0, 0)),
        "pixels": net("pixels", (1.1, 0), "features", "to [0, 1]"),
        "svm": machine,
        "score": output("score", (3.5, 0), "Σ αᵢ k(x, xᵢ) + b"),
    }
    return [
        wgan_gan(SMALL, 128, pool=True),
        Panel("gather", "normals, then the pool; scikit-learn solves", nodes, arrows),
        Panel(
            "",
            "one kernel sum",
            freeze(scoring),
            [Arrow("x", "pixels", shape=SMALL), Arrow("pixels", "svm", shape="1024"), Arrow("svm", "score")],
        ),
    ]
