"""Skip-GANomaly: a U-Net learns to copy normal images so that a discriminator sees no difference; anomalies show one.

Akcay, Atapour-Abarghouei, Breckon 2019, IJCNN. Sizes and settings of the defaults are those of the authors' code.
≠ code: no test image has a say in choosing the epoch, in the scale of the scores or, unless asked for, in another's
score.
"""

from typing import Annotated

from torch import Tensor

from anomaly_lab.detectors.families.reconstruction_gan import BnMode, ReconstructionGAN
from anomaly_lab.losses.cross_entropy import discriminator_loss, generator_loss
from anomaly_lab.losses.ganomaly import DiscriminatorOutput
from anomaly_lab.losses.reconstruction import mean_squared
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.networks.ganomaly import SkipGANomalyDiscriminator, stage_widths
from anomaly_lab.networks.unet import UNet
from anomaly_lab.types import Channels, CodeLength, Fraction, Iterations, Prediction, Rate, Square, Weight, Width


class SkipGANomaly(ReconstructionGAN):
    """One phase, `gan`: the U-Net (the paper's G) moves, then D.

    Through its skip connections the U-Net can learn to copy anything; then scores get worse as training goes on.

    Args:
        patch_size: side of the square image, a power of two >= 8, twice.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of D's features.
        reconstruction_weight: of the pixels' L1 distance (the paper: 40); the other two terms weigh 1.
        latent_in_d: whether D, too, makes its features of images and reconstructions alike, as in the authors' code.
        residual_weight: lambda, share of the pixels in the score; the rest is D's features'.
        bn_mode: `eval` scores each image by itself; `batch` by the statistics of its batch, as the authors' code does,
            so that a score depends on its neighbours: for reproduction only.
        gan_iterations: length of the training.
        lr: learning rate of both networks.
        augment_d: what is done to all images the discriminator sees, in training.
    """

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (64, 64),
        in_channels: Channels = 1,
        width: Width = 64,
        latent_dim: CodeLength = 100,
        reconstruction_weight: Weight = 50.0,
        latent_in_d: bool = True,
        residual_weight: Fraction = 0.9,
        bn_mode: BnMode = "eval",
        gan_iterations: Iterations = 10_000,
        lr: Rate = 2e-4,
        augment_d: AugmentD = "none",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.reconstructor = UNet(in_channels, patch_size, width)
        self.discriminator = SkipGANomalyDiscriminator(in_channels, stage_widths(patch_size, width), latent_dim)

    def reconstructor_loss(self, real: Tensor) -> Tensor:
        """Cross-entropy of reconstructions taken for real, and distances to images [B, C, H, W] in pixels and to D."""
        reconstruction = self.reconstructor(real)
        deceit = self.adversarial(real, reconstruction, deceit_and_latent)
        pixel = (real - reconstruction.float()).abs().mean()
        self.track({"train/adversarial": deceit, "train/reconstruction": pixel})
        loss: Tensor = deceit + self.settings.reconstruction_weight * pixel
        return loss

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Cross-entropy of images [B, C, H, W] against their reconstructions, and their distance to D itself."""
        of_real, of_fake = self.outputs.pop(0)
        loss = discriminator_loss(of_real.logit, of_fake.logit)
        latent = mean_squared(of_real.features, of_fake.features).mean()
        self.track({"train/discriminator": loss, "train/latent": latent})
        if self.settings.latent_in_d:  # ≠ paper: it rewards a D that sees less
            loss = loss + latent
        self.losses.append(loss.detach())
        self.track_discriminator(of_real.logit)
        return loss

    def discriminator_output(self, image: Tensor) -> Tensor:
        logit: Tensor = self.discriminator(image)[0]
        return logit

    def predict(self, image: Tensor) -> Prediction:
        """Score: lambda · pixel residual + (1 - lambda) · D's feature residual; map: |x - x̂|, mean over channels."""
        weight = self.settings.residual_weight
        with self.scoring_mode():
            reconstruction = self.reconstructor(image)
            (_, features), (_, features_hat) = self.discriminator(image), self.discriminator(reconstruction)
        score = weight * mean_squared(image, reconstruction) + (1 - weight) * mean_squared(features, features_hat)
        return Prediction(score, (image - reconstruction).abs().mean(1, keepdim=True), reconstruction)


def deceit_and_latent(real: DiscriminatorOutput, fake: DiscriminatorOutput) -> Tensor:
    """Cross-entropy of reconstructions taken for real, and mean (f - f̂)² of D's features; a scalar."""
    return generator_loss(fake.logit) + mean_squared(real.features, fake.features).mean()
