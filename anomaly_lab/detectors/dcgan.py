"""DCGAN whose discriminator is the detector.

Radford, Metz, Chintala 2016, used as a baseline of adGAN (Shen, Chen, Wang, Zhang 2020, IEEE Access 8, table 4). The
latter do not state its networks. Here the generator is adGAN's, to make the two comparable, and the discriminator is
DCGAN's.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.gan import GenerativeDetector
from anomaly_lab.losses.cross_entropy import discriminator_loss, generator_loss
from anomaly_lab.networks.adgan import AdGANGenerator
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.networks.dcgan import DCGANDiscriminator
from anomaly_lab.types import Channels, CodeLength, Iterations, Phase, Prediction, Rate, Square, Width


class DCGAN(GenerativeDetector):
    """One phase, `gan`: one step of the discriminator and one of the generator per iteration.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        gan_iterations: length of the training (the paper does not state it; as for its WGAN).
        lr: learning rate of both networks.
        augment_d: augmentation of all images the discriminator sees in training.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.DCGAN(patch_size=(32, 32), width=4, latent_dim=8)
        >>> detector.score({"image": torch.zeros(2, 1, 32, 32)}).anomaly_score.shape
        torch.Size([2])
    """

    networks = ("generator", "discriminator")

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (32, 32),
        in_channels: Channels = 1,
        width: Width = 64,
        latent_dim: CodeLength = 128,
        gan_iterations: Iterations = 200_000,
        lr: Rate = 2e-4,
        augment_d: AugmentD = "none",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.generator = AdGANGenerator(latent_dim, in_channels, patch_size, width)
        self.discriminator = DCGANDiscriminator(in_channels, patch_size, width)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("gan", self.settings.gan_iterations, self.networks),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        networks = (self.generator, self.discriminator)
        return tuple(Adam(network.parameters(), self.settings.lr, betas=(0.5, 0.999)) for network in networks)

    def gan_step(self, batches: Tensor) -> None:
        """Take one step of the discriminator, then one of the generator, on each mini-batch of [1, B, C, H, W]."""
        for real in batches:
            self.step_optimizer("discriminator", self.discriminator_loss, real)
            self.step_optimizer("generator", self.generator_loss, real)

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Return the cross-entropy of real images [B, C, H, W] against as many fresh fakes.

        Real and fake images are separate batches for batch norm.
        """
        with torch.no_grad():
            fake = self.augmented(self.generator(self.noise(len(real))))
        logit = self.discriminator(self.augmented(real))
        # L_D = -mean log D(x) - mean log(1 - D(G(z)))
        loss = discriminator_loss(logit, self.discriminator(fake))
        self.track_discriminator(logit)
        self.track({"train/discriminator": loss})
        return loss

    def generator_loss(self, real: Tensor) -> Tensor:
        """Return the non-saturating loss on as many fakes as there are images in `real`, [B, C, H, W]."""
        # L_G = -mean log D(G(z))
        loss = generator_loss(self.discriminator(self.augmented(self.generator(self.noise(len(real))))))
        self.track({"train/generator": loss})
        return loss

    def discriminator_output(self, image: Tensor) -> Tensor:
        logit: Tensor = self.discriminator(image)
        return logit

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus the logit of "real"."""
        with torch.no_grad():
            return Prediction(-self.discriminator(image))
