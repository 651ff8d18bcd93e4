"""GANomaly: an auto-encoder reconstructs an image, a second encoder reads that; of anomalies their codes disagree.

Akcay, Atapour-Abarghouei, Breckon 2018, ACCV. Sizes and settings of the defaults are those of the authors' code; what
the paper and anomalib do otherwise is behind `variant`. ≠ code: no test image has a say in choosing the epoch, in the
scale of the scores or, unless asked for, in another's score.
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
    """One phase, `gan`: the auto-encoder with its second encoder (the paper's G and E) moves, then D.

    Args:
        patch_size: side of the square image, a power of two >= 8, twice.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        channel_cap: most channels of a stage; None doubles them at every stage (1024 at 128×128).
        latent_dim: length of the codes.
        variant: adversarial and latent loss as the `paper` prints them, as the `official` code or as `anomalib` has
            them; the pixels' L1 distance is in all three.
        reconstruction_weight: of the pixels' distance; the other two weigh 1.
        score_norm: `l2` mean (z - ẑ)² as in the authors' code, `l1` mean |z - ẑ| as in the paper.
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
        """Distances of images [B, C, H, W] and reconstructions in D's eyes, in pixels and in codes."""
        p = self.settings
        reconstruction, z_hat, z = self.reconstructor(real)
        deceit = self.adversarial(real, reconstruction, partial(adversarial_distance, variant=p.variant))
        pixel, latent = (real - reconstruction.float()).abs().mean(), latent_distance(z, z_hat, p.variant)
        self.track({"train/adversarial": deceit, "train/reconstruction": pixel, "train/latent": latent})
        loss: Tensor = deceit + p.reconstruction_weight * pixel + latent
        return loss

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Half the cross-entropy of images [B, C, H, W] against their reconstructions."""
        of_real, of_fake = self.outputs.pop(0)
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
