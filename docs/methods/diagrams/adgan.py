"""adGAN: what flows where."""

from drawing import Panel, loss, net
from panels import SMALL, against_pool, straight_score, wgan_gan


def panels() -> list[Panel]:
    judge = net("judge", (1.6, 0), "judge", "J")
    tag = loss("judge loss", (3.5, 0), "mean J(x̃) − mean J(x) + 10·GP + α·std J(x)")
    return [
        wgan_gan(SMALL, 128, pool=True),
        against_pool("critic", judge, "the judge, against the pool", tag, carry=True),
        straight_score(judge, SMALL, "−J(x)", "one pass"),
    ]
