"""Auto-encoder and variational auto-encoder: what a short code of normal images cannot hold is not redrawn.

Kingma, Welling 2014, ICLR; networks and settings of the matched pair in MedIAnomaly (Cai et al. 2024). The plain one is
the floor under every adversarial method.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.losses.divergence import divergence_from_normal
from anomaly_lab.losses.reconstruction import mean_squared
from anomaly_lab.networks.autoencoder import Autoencoder
from anomaly_lab.types import Channels, CodeLength, Iterations, Phase, Prediction, Rate, Square, Weight, Width


class AutoencoderDetector(Detector):
    """One phase, `reconstruction`: encoder and decoder learn to redraw normal images by their squared error.

    Args:
        patch_size: side of the square image, a power of two >= 8, twice.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of the code z.
        variational: z is drawn from a normal distribution of the encoder's, held near N(0, 1); a VAE.
        divergence_weight: of a VAE's divergence from N(0, 1), a mean over z as the error is one over pixels.
        map_of: what the map shows and the score is the mean of: the squared error (`residual`) or how steeply the loss
            depends on each pixel (`gradient`, Zimmerer et al. 2019).
        reconstruction_iterations: length of the training (250 passes over 3 851 chest radiographs).
        lr: learning rate.
    """

    networks = ("autoencoder",)

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (64, 64),
        in_channels: Channels = 1,
        width: Width = 16,
        latent_dim: CodeLength = 16,
        variational: bool = False,
        divergence_weight: Weight = 0.005,
        map_of: Literal["residual", "gradient"] = "residual",
        reconstruction_iterations: Iterations = 15_000,
        lr: Rate = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.autoencoder = Autoencoder(in_channels, latent_dim, patch_size, width, variational)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("reconstruction", self.settings.reconstruction_iterations, self.networks),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (Adam(self.autoencoder.parameters(), self.settings.lr),)

    def reconstruction_step(self, batches: Tensor) -> None:
        """Encoder and decoder move once on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            self.step_optimizer("autoencoder", self.autoencoder_loss, image)

    def autoencoder_loss(self, image: Tensor) -> Tensor:
        """Mean over the batch [B, C, H, W] of `losses`."""
        loss: Tensor = self.losses(image)[0].mean()
        self.track({"train/autoencoder": loss})
        return loss

    def losses(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of each image [B, C, H, W], of a VAE with the weighted divergence, [B]; and reconstructions."""
        reconstruction, mean, log_variance = self.autoencoder(image)
        loss = mean_squared(image, reconstruction)
        if self.settings.variational:
            divergence = divergence_from_normal(mean, log_variance)
            loss = loss + self.settings.divergence_weight * divergence
            self.track({"train/divergence": divergence.mean()})
        return loss, reconstruction

    def predict(self, image: Tensor) -> Prediction:
        """Map: squared error or slope of the loss, mean over channels; score: the map's mean.

        ≠ code: theirs draws z in judging too, so that a VAE's scores change from one time to the next.
        """
        with torch.enable_grad():  # an image's loss depends on no other image, so the sum's gradient is each one's own
            image = image.detach().requires_grad_(self.settings.map_of == "gradient")
            loss, reconstruction = self.losses(image)
            if image.requires_grad:
                per_pixel = torch.autograd.grad(loss.sum(), image)[0].abs()
            else:
                per_pixel = (image - reconstruction).square()
        anomaly_map = per_pixel.detach().mean(1, keepdim=True)
        return Prediction(anomaly_map.flatten(1).mean(1), anomaly_map, reconstruction.detach().clamp(-1, 1))
