"""GBAD: what flows where."""

from drawing import Arrow, Node, Panel, freeze, loss, net, output, source


def features(note: str) -> dict[str, Node]:
    return {
        "x": source("image", (0.04, 0), note),
        "cnn": net("CNN + FPN", (1.12, 0), "classifier", "four levels", frozen=True),
        "standard": net("standardise", (2.22, 0), "standard", "mean, deviation", width=108),
    }


FEATURES = [Arrow("x", "cnn"), Arrow("cnn", "standard", shape="1024 + 1", segment=0)]


def panels() -> list[Panel]:
    image = source("image", (0, 0), "balanced")
    classifier = {
        "x": image,
        "cnn": net("CNN", (1.15, 0), "classifier", "ResNet-101"),
        "fpn": net("FPN", (2.25, 0), "classifier", "4 × 256 maps"),
        "heads": net("FC1 … FC5", (3.25, 0), "classifier"),
        "loss": loss("cross-entropy", (4.25, 0), "mean and each"),
    }
    classified = [
        Arrow("x", "cnn", shape="3×224×224"),
        Arrow("cnn", "fpn", "C2 … C5"),
        Arrow("fpn", "heads", "means"),
        Arrow("heads", "loss"),
    ]
    bigan = {
        **features("normal"),
        "E": net("encoder", (3.3, 0), "encoder", "E"),
        "D": net("discriminator", (3.3, 1.1), "discriminator", "pairs (x, z)", width=108),
        "z": source("z", (0.6, 2.2), "~ N(0, I)"),
        "G": net("generator", (2.15, 2.2), "generator", "G"),
        "loss": loss("real or drawn", (4.22, 1.1), "BCE"),
        "R": loss("R, to G alone", (4.05, 2.2), "mean |x − G(E(x))|"),
    }
    trained = [
        *FEATURES,
        Arrow("standard", "E", "x", "1025"),
        Arrow("E", "D", "x, E(x)", leave="bottom", enter="top"),
        Arrow("z", "G", shape="64"),
        Arrow("G", "D", "G(z), z", leave="top", enter="left"),
        Arrow("D", "loss"),
        Arrow("G", "R", "G(E(x))", "1025"),
    ]
    judged = {
        "E": net("BiGAN", (3.3, 0), "encoder", "averaged", frozen=True),
    }
    svm = {
        **features("all kinds"),
        **judged,
        "standard": net("standardise", (2.22, 0), "standard", "mean, deviation", width=108, frozen=True),
        "machine": net("SVM", (4.28, 0), "machine", "solved at the end", width=112),
    }
    lost = [*FEATURES, Arrow("standard", "E", "x"), Arrow("E", "machine", shape="R, FM")]
    scoring = {
        **freeze(svm),
        "x": source("image", (0.04, 0)),
        "damped": output("score", (4.02, 1.1), "highest p · .1 if harmless"),
        "map": output("map", (2.6, 1.8), "class activation"),
    }
    ends = [
        Arrow("machine", "damped", leave="bottom", enter="top"),
        Arrow("cnn", "damped", "p", "probabilities", leave="bottom", enter="left", shift=(12, 0)),
        Arrow("cnn", "map", leave="bottom", enter="left", shift=(-12, 0)),
    ]
    return [
        Panel("classifier", "balanced images", classifier, classified),
        Panel("bigan", "features of normals alone", bigan, trained),
        Panel("svm", "the BiGAN’s two losses", svm, lost),
        Panel("", "one pass; the SVM damps the classifier", scoring, lost + ends),
    ]
