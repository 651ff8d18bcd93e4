"""Multi-KD: what flows where."""

from drawing import Arrow, Node, Panel, freeze, loss, net, output, source


def panels() -> list[Panel]:

    def nodes(teacher_note: str) -> dict[str, Node]:
        return {
            "x": source("x", (-0.05, 0.5), "normal"),
            "T": net("teacher", (1.4, 0), "teacher", teacher_note, frozen=True, width=124),
            "S": net("cloner", (1.4, 1), "cloner", "narrow VGG", width=124),
        }

    arrows = [
        Arrow("x", "T", shape="3×128×128", lane=0.62, segment=0),
        Arrow("x", "S", lane=0.62),
        Arrow("T", "loss", "4 taps", "128…512 maps", lane=2.72, shift=(0, -8), segment=0),
        Arrow("S", "loss", "4 taps", "same shapes", lane=2.72, shift=(0, 8), segment=0),
    ]
    training = {
        **nodes("VGG-16, ImageNet"),
        "loss": loss("distillation", (3.7, 0.5), "Σ₄ (1 − cos) + λ Σ₄ mean (s − t)²"),
    }
    scoring = {
        **freeze({**nodes("VGG-16"), "x": source("x", (-0.05, 0.5))}),
        "loss": output("score", (3.7, 0.5), "the same over the last 3 taps"),
        "map": output("map", (3.7, 1.6), "|∂ score / ∂x|, blurred"),
    }
    scored = [
        *(Arrow("x", key, lane=0.62, shape=shape, segment=0) for key, shape in (("T", "3×128×128"), ("S", ""))),
        Arrow("T", "loss", "3 taps", lane=2.72, shift=(0, -8), segment=0),
        Arrow("S", "loss", "3 taps", lane=2.72, shift=(0, 8), segment=0),
        Arrow("loss", "map", shape="gradient, guided", leave="bottom", enter="top", dashed=True),
    ]
    return [
        Panel("distillation", "the cloner follows the frozen teacher", training, arrows),
        Panel("", "two passes forward, one back to the pixels", scoring, scored),
    ]
