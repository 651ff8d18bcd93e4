"""Autoencoder and variational autoencoder: a short code of normal images cannot represent an anomaly.

Kingma, Welling 2014, ICLR; networks and settings of the matched pair in MedIAnomaly (Cai et al. 2024). The plain
autoencoder is the baseline of every adversarial method.
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
    """One phase, `reconstruction`: encoder and decoder are trained to reconstruct normal images.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of the code z.
        variational: whether z is drawn from a normal distribution kept near N(0, 1), as in a VAE.
        divergence_weight: weight of a VAE's divergence from N(0, 1), a mean over z, as the error is a mean over pixels.
        map_of: what the map shows; the score is its mean. `residual`, the squared error, or `gradient`, the absolute
            gradient of the loss with respect to each pixel (Zimmerer et al. 2019).
        reconstruction_iterations: length of the training (250 passes over 3 851 chest radiographs).
        lr: learning rate.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.AutoencoderDetector(patch_size=(32, 32), width=4, latent_dim=8)
        >>> prediction = detector.score({"image": torch.zeros(2, 1, 32, 32)})
        >>> torch.allclose(prediction.anomaly_score, prediction.anomaly_map.mean((1, 2, 3)))
        True
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
        """Take one step of encoder and decoder on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            self.step_optimizer("autoencoder", self.autoencoder_loss, image)

    def autoencoder_loss(self, image: Tensor) -> Tensor:
        """Return the mean of `losses` over the batch [B, C, H, W]."""
        losses, _, divergence = self.losses(image)
        loss: Tensor = losses.mean()
        self.track({"train/autoencoder": loss})
        if divergence is not None:
            self.track({"train/divergence": divergence.mean()})
        return loss

    def losses(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the loss of each image [B, C, H, W], [B], the reconstructions, and a VAE's divergences, [B]."""
        reconstruction, mean, log_variance = self.autoencoder(image)
        loss = mean_squared(image, reconstruction)  # mean (x - x̂)²
        if not self.settings.variational:
            return loss, reconstruction, None
        # + weight · KL(N(μ, σ²) ‖ N(0, 1)) (Kingma, Welling 2014, appendix B)
        divergence = divergence_from_normal(mean, log_variance)
        return loss + self.settings.divergence_weight * divergence, reconstruction, divergence

    def predict(self, image: Tensor) -> Prediction:
        """Map: squared error or absolute gradient of the loss, mean over channels; score: mean of the map.

        ≠ code: theirs also draws z when scoring, so that scores of a VAE vary from call to call.
        """
        with torch.enable_grad():  # losses of images are independent, so the gradient of the sum holds that of each
            image = image.detach().requires_grad_(self.settings.map_of == "gradient")
            loss, reconstruction, _ = self.losses(image)
            if image.requires_grad:
                per_pixel = torch.autograd.grad(loss.sum(), image)[0].abs()
            else:
                per_pixel = (image - reconstruction).square()
        anomaly_map = per_pixel.detach().mean(1, keepdim=True)
        return Prediction(anomaly_map.flatten(1).mean(1), anomaly_map, reconstruction.detach().clamp(-1, 1))
