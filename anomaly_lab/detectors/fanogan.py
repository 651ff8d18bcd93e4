"""f-AnoGAN: a Wasserstein GAN learns normal images, then an encoder learns to invert it.

Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth 2019, Medical Image Analysis 54, 30-44. G, E, z, kappa as in the
paper; its D is our critic. Sizes and settings of the defaults are those of the authors' code.
"""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.gan import WassersteinDetector
from anomaly_lab.detectors.families.optimizers import tensorflow_rmsprop
from anomaly_lab.losses.reconstruction import mean_squared
from anomaly_lab.networks.adgan import AdGANCritic, AdGANEncoder, AdGANGenerator
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.networks.resnet import ResNetCritic, ResNetEncoder, ResNetGenerator
from anomaly_lab.types import Channels, CodeLength, Iterations, Phase, Prediction, Range, Rate, Square, Weight, Width

BACKBONES: dict[str, tuple[Any, Any, Any]] = {  # classes of generator, critic and encoder
    "resnet": (ResNetGenerator, ResNetCritic, ResNetEncoder),
    "adgan": (AdGANGenerator, AdGANCritic, AdGANEncoder),
}


class FAnoGAN(WassersteinDetector):
    """Two phases: `gan` trains generator and critic as a WGAN-GP, `encoder` trains E with both frozen.

    Args:
        patch_size: side of the square image, a power of two >= 32, twice.
        in_channels: 1 or 3.
        width: channels at full resolution (64 in the authors' code).
        latent_dim: length of z, drawn from N(0, 1).
        n_critic: critic steps an iteration, each on a fresh mini-batch.
        gp_weight: lambda of the gradient penalty (Gulrajani et al. 2017, eq. 3).
        kappa: weight of the feature residual, in the encoder's loss and in the score.
        encoder_training: `izif` image → z → image with the feature residual, `izi` without it in training,
            `ziz` z → image → z, which never shows E a real image.
        gan_iterations: length of the first phase (the paper: 7 passes over about a million patches).
        encoder_iterations: length of the second phase.
        lr_gan: learning rate of generator and critic.
        lr_encoder: learning rate of E.
        augment_d: what is done to all images the critic sees, in training.
        backbone: `resnet`, the authors' networks, or `adgan`, those of adGAN (Shen et al. 2020), with which it may
            start from the WGAN of an adGAN; `dcgan` is its old name.
    """

    networks = ("generator", "critic", "encoder")
    critic: ResNetCritic | AdGANCritic

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(32)] = (64, 64),
        in_channels: Channels = 1,
        width: Width = 64,
        latent_dim: CodeLength = 128,
        n_critic: Annotated[int, Range("[1, 1000]")] = 5,
        gp_weight: Weight = 10.0,
        kappa: Weight = 1.0,
        encoder_training: Literal["izi", "izif", "ziz"] = "izif",
        gan_iterations: Iterations = 50_000,
        encoder_iterations: Iterations = 50_000,
        lr_gan: Rate = 1e-4,
        lr_encoder: Rate = 5e-5,
        augment_d: AugmentD = "none",
        backbone: Literal["resnet", "adgan", "dcgan"] = "resnet",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        generator, critic, encoder = BACKBONES["adgan" if backbone == "dcgan" else backbone]
        self.generator = generator(latent_dim, in_channels, patch_size, width)
        self.critic = critic(in_channels, patch_size, width)  # batch norm in it would break the penalty
        self.encoder = encoder(in_channels, latent_dim, patch_size, width)

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        return (
            Phase("gan", p.gan_iterations, ("generator", "critic"), minibatches=p.n_critic),
            Phase("encoder", p.encoder_iterations, ("encoder",)),
        )

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        p = self.settings
        return (
            Adam(self.generator.parameters(), p.lr_gan, betas=(0.0, 0.9)),
            Adam(self.critic.parameters(), p.lr_gan, betas=(0.0, 0.9)),
            tensorflow_rmsprop(self.encoder.parameters(), p.lr_encoder),
        )

    def gan_step(self, batches: Tensor) -> None:
        """The critic moves once on each mini-batch of [n_critic, B, C, H, W], then the generator once."""
        for real in batches:
            self.step_optimizer("critic", self.critic_loss, real)
        self.step_optimizer("generator", self.generator_loss, real)

    def encoder_step(self, batches: Tensor) -> None:
        """E moves once on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            self.step_optimizer("encoder", self.encoder_loss, image)

    def encoder_loss(self, image: Tensor) -> Tensor:
        """Mean over the batch of what `encoder_training` names; image: [B, C, H, W]."""
        p = self.settings
        if p.encoder_training == "ziz":
            z = self.noise(len(image))
            loss = mean_squared(z, self.encoder(self.generator(z))).mean()
        else:
            pixel, feature, _ = self.residuals(image)
            loss = (pixel + p.kappa * feature if p.encoder_training == "izif" else pixel).mean()
            self.track({"train/image_residual": pixel.mean(), "train/feature_residual": feature.mean()})
        self.track({"train/encoder": loss})
        return loss

    def residuals(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixel and feature distance [B] of images to their reconstruction G(E(x)) [B, C, H, W], and that itself."""
        reconstruction = self.generator(self.encoder(image))
        feature = mean_squared(self.critic.features(image), self.critic.features(reconstruction))
        return mean_squared(image, reconstruction), feature, reconstruction

    def predict(self, image: Tensor) -> Prediction:
        """Score: pixel residual + kappa · feature residual; map: |x - G(E(x))|, mean over channels."""
        with torch.no_grad():
            pixel, feature, reconstruction = self.residuals(image)
        anomaly_map = (image - reconstruction).abs().mean(1, keepdim=True)
        return Prediction(pixel + self.settings.kappa * feature, anomaly_map, reconstruction)
