"""ALOCC: an autoencoder R denoises normal images; the discriminator trained against it scores its output.

Sabokrou, Khalooei, Fathy, Adeli 2018, CVPR. Where the authors' code differs (it reconstructs the noisy image with a
cross-entropy, has one learning rate, never stops and scores the image itself), this follows the paper.
"""

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from anomaly_lab.detectors.families.gan import GANDetector
from anomaly_lab.detectors.families.optimizers import tensorflow_rmsprop
from anomaly_lab.losses.cross_entropy import discriminator_loss, generator_loss
from anomaly_lab.losses.reconstruction import mean_squared
from anomaly_lab.networks.alocc import ALOCCDiscriminator, Reconstructor
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.types import Channels, Fraction, Iterations, Phase, Prediction, Range, Rate, Square, Weight, Width

ERROR_DECAY = 0.9  # of the running mean of the error
CHECK_EVERY = 10  # iterations between checks of the stopping rule, each of which waits for the device


class ALOCC(GANDetector):
    """One phase, `gan`, trains R and D against each other until R reconstructs well enough; then both are frozen.

    The length of a phase is fixed, so the paper's early stop is a freeze: the remaining iterations change nothing.
    `reconstructor.stopped_at` stores the iteration. The rule uses only training batches, no labels.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        gan_iterations: maximum number of iterations.
        noise: standard deviation of the noise added to images in [-1, 1] in training; none is added in scoring.
        reconstruction_weight: lambda, weight of the squared error in R's loss.
        rho: R is good enough when its mean squared error has fallen to this fraction of the untrained R's; 0 for never.
        lr_reconstructor: learning rate of R.
        lr_discriminator: learning rate of D; Shen et al. 2020 found that the two must differ.
        augment_d: augmentation of all images the discriminator sees in training.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.ALOCC(patch_size=(32, 32), width=4)
        >>> prediction = detector.score({"image": torch.zeros(2, 1, 32, 32)})
        >>> prediction.anomaly_score.shape, prediction.reconstruction.shape
        (torch.Size([2]), torch.Size([2, 1, 32, 32]))
    """

    networks = ("reconstructor", "discriminator")

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (64, 64),
        in_channels: Channels = 1,
        width: Width = 64,
        gan_iterations: Iterations = 20_000,
        noise: Annotated[float, Range("[0, 10]")] = 0.155,
        reconstruction_weight: Weight = 0.4,
        rho: Fraction = 0.1,
        lr_reconstructor: Rate = 2e-3,
        lr_discriminator: Rate = 5e-4,
        augment_d: AugmentD = "none",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.reconstructor = Reconstructor(in_channels, patch_size, width)
        self.discriminator = ALOCCDiscriminator(in_channels, patch_size, width)
        self.stopped = False  # whether `stopped_at` is set, readable without waiting for the device
        self._errors: list[Tensor] = []

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("gan", self.settings.gan_iterations, self.networks),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        p = self.settings
        return (
            tensorflow_rmsprop(self.reconstructor.parameters(), p.lr_reconstructor),
            tensorflow_rmsprop(self.discriminator.parameters(), p.lr_discriminator),
        )

    def gan_step(self, batches: Tensor) -> None:
        """Take one step of D, then one of R, on each mini-batch of [1, B, C, H, W], unless R is good enough already."""
        if self.stopped:
            return
        for real in batches:
            self.step_optimizer("discriminator", self.discriminator_loss, real)
            self.step_optimizer("reconstructor", self.reconstructor_loss, real)
            self._stop_if_good_enough()

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Return the cross-entropy of real images [B, C, H, W] against denoised ones."""
        with torch.no_grad():
            fake = self.augmented(self.reconstructor(self.noisy(real)))
        logit = self.discriminator(self.augmented(real))
        # L_D = -mean log D(x) - mean log(1 - D(R(x + η))), η ~ N(0, noise²)
        loss = discriminator_loss(logit, self.discriminator(fake))
        self.track_discriminator(logit)
        self.track({"train/discriminator": loss})
        return loss

    def reconstructor_loss(self, real: Tensor) -> Tensor:
        """Return R's loss: cross-entropy of denoised images as real, plus lambda · squared error.

        Args:
            real: [B, C, H, W].
        """
        reconstruction = self.reconstructor(self.noisy(real))
        adversarial = generator_loss(self.discriminator(self.augmented(reconstruction)))  # -mean log D(R(x + η))
        error = mean_squared(real, reconstruction).mean()  # L_R = ‖x - R(x + η)‖², as a mean
        self._errors.append(error.detach())
        self.track({"train/reconstructor": adversarial, "train/reconstruction_error": error})
        loss: Tensor = adversarial + self.settings.reconstruction_weight * error  # L_R+D + lambda L_R
        return loss

    def noisy(self, image: Tensor) -> Tensor:
        """Return the image plus noise from N(0, noise²)."""
        noisy: Tensor = image + self.settings.noise * torch.randn_like(image)
        return noisy

    def _stop_if_good_enough(self) -> None:
        """Freeze both networks if the running mean of R's error, averaged over ranks, has fallen far enough."""
        error = torch.stack(self._errors).mean()
        self._errors.clear()
        if self.trainer.world_size > 1:
            error = self.trainer.strategy.reduce(error, reduce_op="mean")
        r, done = self.reconstructor, self.iterations_done + 1
        if done == 1:
            r.initial_error.copy_(error)
            r.error.copy_(error)
        r.error.lerp_(error, 1 - ERROR_DECAY)
        if done % CHECK_EVERY == 0 and bool(r.error < self.settings.rho * r.initial_error):
            r.stopped_at.fill_(done)
            self.stopped = True

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        keys = super().load_state_dict(*args, **kwargs)
        self.stopped = int(self.reconstructor.stopped_at) >= 0
        return keys

    def discriminator_output(self, image: Tensor) -> Tensor:
        logit: Tensor = self.discriminator(image)
        return logit

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus D's logit of R(x), which orders images like 1 - D(R(x)); map: |x - R(x)|, mean over channels."""
        with torch.no_grad():
            reconstruction = self.reconstructor(image)
            logit = self.discriminator(reconstruction)
        anomaly_map = (image - reconstruction).abs().mean(1, keepdim=True)
        return Prediction(-logit, anomaly_map, reconstruction)
