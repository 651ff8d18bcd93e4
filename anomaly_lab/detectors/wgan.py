"""Wasserstein GAN whose critic is the detector, optionally with adGAN's concentration loss (stdWGAN).

Gulrajani et al. 2017 (WGAN-GP) with the networks of Shen, Chen, Wang, Zhang 2020 (adGAN), IEEE Access 8, tables 4, 5.
Equation and algorithm numbers are those of Shen et al.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.gan import WassersteinDetector
from anomaly_lab.losses.concentration import concentration
from anomaly_lab.networks.adgan import AdGANCritic, AdGANGenerator
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.types import Channels, CodeLength, Iterations, Phase, Prediction, Range, Rate, Square, Weight, Width


class WGAN(WassersteinDetector):
    """One phase, `gan`: the same iterations as the first phase of adGAN, so that adGAN can be started from it.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        n_critic: critic steps per iteration, each on a fresh mini-batch.
        gp_weight: lambda, weight of the gradient penalty.
        concentration_weight: alpha, weight of the spread of the critic's outputs over a mini-batch of real images; 0
            gives the plain WGAN-GP, 1 the paper's stdWGAN.
        gan_iterations: length of the training.
        lr: learning rate of both networks.
        augment_d: augmentation of all images the critic sees in training.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.WGAN(patch_size=(32, 32), width=4, latent_dim=8)
        >>> image = torch.zeros(2, 1, 32, 32)
        >>> bool((detector.predict(image).anomaly_score == -detector.critic(image)).all())
        True
    """

    networks = ("generator", "critic")

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (32, 32),
        in_channels: Channels = 1,
        width: Width = 64,
        latent_dim: CodeLength = 128,
        n_critic: Annotated[int, Range("[1, 1000]")] = 5,
        gp_weight: Weight = 10.0,
        concentration_weight: Weight = 0.0,
        gan_iterations: Iterations = 200_000,
        lr: Rate = 1e-4,
        augment_d: AugmentD = "none",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.generator = AdGANGenerator(latent_dim, in_channels, patch_size, width)
        self.critic = AdGANCritic(in_channels, patch_size, width)

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        return (Phase("gan", p.gan_iterations, self.networks, minibatches=p.n_critic),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        networks = (self.generator, self.critic)
        return tuple(Adam(network.parameters(), self.settings.lr, betas=(0.0, 0.9)) for network in networks)

    @property
    def couples_batch(self) -> bool:
        """The spread of the critic's outputs is that of a mini-batch (eq. 2)."""
        return super().couples_batch or self.settings.concentration_weight > 0

    def gan_step(self, batches: Tensor) -> None:
        """Take one critic step on each mini-batch of [n_critic, B, C, H, W], then one generator step."""
        for real in batches:  # algorithm 1, lines 2-6
            self.step_optimizer("critic", self.critic_loss, real)
        self.step_optimizer("generator", self.generator_loss, real)  # algorithm 1, lines 7-9

    def critic_loss(self, real: Tensor) -> Tensor:
        """Return the critic's loss on real images [B, C, H, W], a WGAN-GP's plus alpha · spread (eq. 2)."""
        loss, score = self.critic_terms(real)  # eq. 1
        spread = concentration(score)  # eq. 3
        self.track({"train/concentration": spread})
        total: Tensor = loss + self.settings.concentration_weight * spread  # eq. 2, fakes from the current generator
        return total

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus the critic's output."""
        with torch.no_grad():
            return Prediction(-self.critic(image))
