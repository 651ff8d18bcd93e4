"""WGAN critic: what flows where."""

from drawing import Panel, net
from panels import GP, SMALL, straight_score, wgan_gan


def panels() -> list[Panel]:
    critic = net("critic", (1.6, 0), "critic", "C")
    return [
        wgan_gan(SMALL, 128, critic_loss=f"{GP} + α·std C(x)"),
        straight_score(critic, SMALL, "−C(x)", "one pass"),
    ]
