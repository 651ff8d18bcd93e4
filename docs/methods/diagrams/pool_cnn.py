"""CNN on the fake pool: what flows where."""

from drawing import Panel, loss, net
from panels import SMALL, against_pool, straight_score, wgan_gan


def panels() -> list[Panel]:
    classifier = net("classifier", (1.6, 0), "classifier", "K")
    tag = loss("cross-entropy", (3.5, 0), "−log σ(K(x)) − log(1 − σ(K(x̃)))")
    return [
        wgan_gan(SMALL, 128, pool=True),
        against_pool("classifier", classifier, "the classifier, normals against the pool", tag, carry=False),
        straight_score(classifier, SMALL, "−K(x)", "one pass"),
    ]
