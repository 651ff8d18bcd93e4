"""DCGAN critic: what flows where."""

from drawing import Panel, net
from panels import SMALL, gan_and_discriminator, straight_score


def panels() -> list[Panel]:
    discriminator = net("discriminator", (1.6, 0), "discriminator", "D", width=104)
    return [gan_and_discriminator(SMALL, 128), straight_score(discriminator, SMALL, "−logit of “real”", "one pass")]
