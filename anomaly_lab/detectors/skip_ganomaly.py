"""Skip-GANomaly: a U-Net is trained to reproduce normal images such that a discriminator cannot tell the difference.

Akcay, Atapour-Abarghouei, Breckon 2019, IJCNN. The defaults are sizes and settings of the authors' code. ≠ code: test
images influence neither the choice of the epoch nor the scale of the scores nor, unless `bn_mode=batch`, each other's
scores.
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
    """One phase, `gan`: a step of the U-Net (G in the paper), then one of D.

    Its skip connections may let the U-Net learn to copy anything; scores then get worse as training goes on.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of D's features.
        reconstruction_weight: weight of the L1 distance of pixels (the paper: 40); the other two terms have weight 1.
        latent_in_d: whether D's loss also contains the distance of its features, as in the authors' code.
        residual_weight: lambda, share of the pixel residual in the score; the rest is the feature residual.
        bn_mode: batch-norm statistics in scoring: `eval` for the running ones, `batch` for those of the current batch
            as in the authors' code. With `batch`, scores depend on the other images: for reproduction only.
        gan_iterations: length of the training.
        lr: learning rate of both networks.
        augment_d: augmentation of all images the discriminator sees in training.

    Examples:
        >>> import torch
        >>> from anomaly_lab import detectors
        >>> detector = detectors.SkipGANomaly(patch_size=(32, 32), width=4, latent_dim=8)
        >>> prediction = detector.score({"image": torch.zeros(2, 1, 32, 32)})
        >>> prediction.anomaly_score.shape, prediction.reconstruction.shape
        (torch.Size([2]), torch.Size([2, 1, 32, 32]))
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
        """Return the U-Net's loss on images [B, C, H, W]: adversarial, pixel and feature term."""
        reconstruction = self.reconstructor(real)
        adversarial = self.adversarial(real, reconstruction, adversarial_and_latent)  # L_adv + L_lat
        pixel = (real - reconstruction.float()).abs().mean()  # L_con = mean |x - x̂|
        self.track({"train/adversarial": adversarial, "train/reconstruction": pixel})
        loss: Tensor = adversarial + self.settings.reconstruction_weight * pixel
        return loss

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Return D's loss: cross-entropy of images [B, C, H, W] against reconstructions, plus the feature distance."""
        of_real, of_fake = self.outputs.pop(0)
        loss = discriminator_loss(of_real.logit, of_fake.logit)  # -mean log D(x) - mean log(1 - D(x̂))
        latent = mean_squared(of_real.features, of_fake.features).mean()  # L_lat = mean (f(x) - f(x̂))²
        self.track({"train/discriminator": loss, "train/latent": latent})
        if self.settings.latent_in_d:  # ≠ paper: this rewards a D that sees smaller differences
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
        # A(x) = lambda R(x) + (1 - lambda) L(x); ≠ code: not rescaled by the test set
        score = weight * mean_squared(image, reconstruction) + (1 - weight) * mean_squared(features, features_hat)
        return Prediction(score, (image - reconstruction).abs().mean(1, keepdim=True), reconstruction)


def adversarial_and_latent(real: DiscriminatorOutput, fake: DiscriminatorOutput) -> Tensor:
    """Return the adversarial term L_adv = -mean log D(x̂) plus the latent term L_lat = mean (f - f̂)², a scalar.

    Args:
        real: D's outputs for images.
        fake: D's outputs for reconstructions.

    Examples:
        >>> import torch
        >>> output = DiscriminatorOutput(torch.zeros(2), torch.ones(2, 4))
        >>> round(adversarial_and_latent(output, output).item(), 4)  # D = 1/2 and equal features: log 2
        0.6931
    """
    return generator_loss(fake.logit) + mean_squared(real.features, fake.features).mean()
