"""GANomaly: an autoencoder and a second encoder of its output; for anomalies, their two codes differ.

Akcay, Atapour-Abarghouei, Breckon 2018, ACCV; equation numbers are theirs. The defaults are sizes and settings of the
authors' code; `variant` selects what the paper and anomalib do differently. ≠ code: test images influence neither the
choice of the epoch nor the scale of the scores nor, unless `bn_mode=batch`, each other's scores.
"""

from functools import partial
from typing import Annotated, Literal

from torch import Tensor

from anomaly_lab.detectors.families.reconstruction_gan import BnMode, ReconstructionGAN
from anomaly_lab.losses.cross_entropy import discriminator_loss
from anomaly_lab.losses.ganomaly import Variant, adversarial_distance, latent_distance
from anomaly_lab.losses.reconstruction import mean_squared
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.networks.ganomaly import EncoderDecoderEncoder, GANomalyDiscriminator, stage_widths
from anomaly_lab.types import Channels, CodeLength, Iterations, Prediction, Rate, Square, Weight, Width


class GANomaly(ReconstructionGAN):
    """One phase, `gan`: a step of the autoencoder with its second encoder (G and E in the paper), then one of D.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        channel_cap: maximum number of channels of a stage; None doubles them at every stage (1024 at 128×128).
        latent_dim: length of the codes.
        variant: adversarial and latent loss as in the `paper`, in the `official` code or in `anomalib`; the L1 distance
            of pixels is in all three.
        reconstruction_weight: weight of the L1 distance of pixels; the other two terms have weight 1.
        score_norm: `l2` mean (z - ẑ)² as in the authors' code, `l1` mean |z - ẑ| as in the paper.
        bn_mode: batch-norm statistics in scoring: `eval` for the running ones, `batch` for those of the current batch
            as in the authors' code. With `batch`, scores depend on the other images: for reproduction only.
        gan_iterations: length of the training.
        lr: learning rate of both networks.
        augment_d: augmentation of all images the discriminator sees in training.

    Examples:
        >>> import torch
        >>> from anomaly_lab import detectors
        >>> detector = detectors.GANomaly(patch_size=(32, 32), width=4, latent_dim=8)
        >>> prediction = detector.score({"image": torch.zeros(2, 1, 32, 32)})
        >>> prediction.anomaly_score.shape, prediction.reconstruction.shape
        (torch.Size([2]), torch.Size([2, 1, 32, 32]))
    """

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (64, 64),
        in_channels: Channels = 1,
        width: Width = 64,
        channel_cap: Width | None = None,
        latent_dim: CodeLength = 100,
        variant: Variant = "official",
        reconstruction_weight: Weight = 50.0,
        score_norm: Literal["l1", "l2"] = "l2",
        bn_mode: BnMode = "eval",
        gan_iterations: Iterations = 10_000,
        lr: Rate = 2e-4,
        augment_d: AugmentD = "none",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        widths = stage_widths(patch_size, width, channel_cap)
        self.reconstructor = EncoderDecoderEncoder(in_channels, latent_dim, widths)
        self.discriminator = GANomalyDiscriminator(in_channels, widths)

    def reconstructor_loss(self, real: Tensor) -> Tensor:
        """Return the autoencoder's loss on images [B, C, H, W]: adversarial, contextual and encoder loss."""
        p = self.settings
        reconstruction, z_hat, z = self.reconstructor(real)
        adversarial = self.adversarial(real, reconstruction, partial(adversarial_distance, variant=p.variant))  # eq. 1
        pixel = (real - reconstruction.float()).abs().mean()  # eq. 2: mean |x - x̂|
        latent = latent_distance(z, z_hat, p.variant)  # eq. 3
        self.track({"train/adversarial": adversarial, "train/reconstruction": pixel, "train/latent": latent})
        loss: Tensor = adversarial + p.reconstruction_weight * pixel + latent
        return loss

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Return D's loss, half the cross-entropy of images [B, C, H, W] against their reconstructions."""
        of_real, of_fake = self.outputs.pop(0)
        # L_D = ½ (-mean log D(x) - mean log(1 - D(x̂))), as in the code
        loss = discriminator_loss(of_real.logit, of_fake.logit) / 2
        self.losses.append(loss.detach())
        self.track_discriminator(of_real.logit)
        self.track({"train/discriminator": loss})
        return loss

    def discriminator_output(self, image: Tensor) -> Tensor:
        logit: Tensor = self.discriminator(image)[0]
        return logit

    def predict(self, image: Tensor) -> Prediction:
        """Score: distance of the two codes; map: |x - x̂|, mean over channels."""
        with self.scoring_mode():
            reconstruction, z_hat, z = self.reconstructor(image)
        score = mean_squared(z, z_hat) if self.settings.score_norm == "l2" else (z - z_hat).abs().mean(1)
        return Prediction(score, (image - reconstruction).abs().mean(1, keepdim=True), reconstruction)
