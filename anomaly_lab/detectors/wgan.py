"""A Wasserstein GAN whose critic is the detector, plain or with adGAN's concentration loss (stdWGAN).

Gulrajani et al. 2017 (WGAN-GP) with the networks of Shen, Chen, Wang, Zhang 2020 (adGAN), IEEE Access 8, tables 4, 5.
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
    """One phase, `gan`: adGAN's first, iteration by iteration, so that adGAN may start from it.

    Args:
        patch_size: side of the square image, a power of two >= 8, twice.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        n_critic: critic steps an iteration, each on a fresh mini-batch.
        gp_weight: lambda of the gradient penalty.
        concentration_weight: alpha, of the spread of the critic's outputs over a mini-batch of real images; 0 for none.
        gan_iterations: length of the training.
        lr: learning rate of both networks.
        augment_d: what is done to all images the critic sees, in training.
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
        moved = (self.generator, self.critic)
        return tuple(Adam(network.parameters(), self.settings.lr, betas=(0.0, 0.9)) for network in moved)

    def gan_step(self, batches: Tensor) -> None:
        """The critic moves once on each mini-batch of [n_critic, B, C, H, W], then the generator once."""
        for real in batches:
            self.step_optimizer("critic", self.critic_loss, real)
        self.step_optimizer("generator", self.generator_loss, real)

    def critic_loss(self, real: Tensor) -> Tensor:
        """WGAN-GP's, and alpha · spread of what the critic says of real [B, C, H, W]."""
        loss, score = self.critic_terms(real)
        spread = concentration(score)
        self.track({"train/concentration": spread})
        total: Tensor = loss + self.settings.concentration_weight * spread
        return total

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus the critic's opinion."""
        with torch.no_grad():
            return Prediction(-self.critic(image))
