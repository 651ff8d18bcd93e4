"""f-AnoGAN: a Wasserstein GAN is trained on normal images, then an encoder that inverts its generator.

Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth 2019, Medical Image Analysis 54, 30-44. G, E, z and kappa as in the
paper; its D is the critic here. The defaults are sizes and settings of the authors' code.
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
        patch_size: height and width of the image, equal, a power of two >= 32.
        in_channels: 1 or 3.
        width: channels at full resolution (64 in the authors' code).
        latent_dim: length of z, drawn from N(0, 1).
        n_critic: critic steps per iteration, each on a fresh mini-batch.
        gp_weight: lambda, weight of the gradient penalty (Gulrajani et al. 2017, eq. 3).
        kappa: weight of the feature residual in the encoder's loss and in the score.
        encoder_training: `izif` image → z → image with the feature residual; `izi` without it; `ziz` z → image → z, in
            which E never sees a real image.
        gan_iterations: length of the first phase (the paper: 7 passes over about a million patches).
        encoder_iterations: length of the second phase.
        lr_gan: learning rate of generator and critic.
        lr_encoder: learning rate of E.
        augment_d: augmentation of all images the critic sees in training.
        backbone: `resnet` for the authors' networks, `adgan` for those of adGAN (Shen et al. 2020), with which it can
            start from the WGAN of an adGAN; `dcgan` is the former name of `adgan`.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.FAnoGAN(patch_size=(32, 32), width=4, latent_dim=8)
        >>> prediction = detector.score({"image": torch.zeros(2, 1, 32, 32)})
        >>> prediction.anomaly_score.shape, prediction.reconstruction.shape
        (torch.Size([2]), torch.Size([2, 1, 32, 32]))
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
        self.critic = critic(in_channels, patch_size, width)  # no batch norm: the penalty requires independent samples
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
        """Take one critic step on each mini-batch of [n_critic, B, C, H, W], then one generator step."""
        for real in batches:  # mean D(G(z)) - mean D(x) + lambda · gradient penalty (Gulrajani et al. 2017, eq. 3)
            self.step_optimizer("critic", self.critic_loss, real)
        self.step_optimizer("generator", self.generator_loss, real)  # -mean D(G(z))

    def encoder_step(self, batches: Tensor) -> None:
        """Take one step of E on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            self.step_optimizer("encoder", self.encoder_loss, image)

    def encoder_loss(self, image: Tensor) -> Tensor:
        """Return the loss chosen by `encoder_training`, averaged over images [B, C, H, W]."""
        p = self.settings
        if p.encoder_training == "ziz":
            z = self.noise(len(image))  # L_ziz = 1/d ‖z - E(G(z))‖²
            loss = mean_squared(z, self.encoder(self.generator(z))).mean()
        else:
            # L_izi = 1/n ‖x - G(E(x))‖²; L_izi_f = L_izi + kappa/n_f ‖f(x) - f(G(E(x)))‖²
            pixel, feature, _ = self.residuals(image)
            loss = (pixel + p.kappa * feature if p.encoder_training == "izif" else pixel).mean()
            self.track({"train/image_residual": pixel.mean(), "train/feature_residual": feature.mean()})
        self.track({"train/encoder": loss})
        return loss

    def residuals(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixel and feature residual [B] of images [B, C, H, W], and the reconstructions G(E(x))."""
        reconstruction = self.generator(self.encoder(image))
        feature = mean_squared(self.critic.features(image), self.critic.features(reconstruction))
        return mean_squared(image, reconstruction), feature, reconstruction

    def predict(self, image: Tensor) -> Prediction:
        """Score: A(x) = pixel residual + kappa · feature residual; map: |x - G(E(x))|, mean over channels."""
        with torch.no_grad():
            pixel, feature, reconstruction = self.residuals(image)
        anomaly_map = (image - reconstruction).abs().mean(1, keepdim=True)
        return Prediction(pixel + self.settings.kappa * feature, anomaly_map, reconstruction)
