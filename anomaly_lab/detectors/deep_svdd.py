"""Deep SVDD: an encoder is trained to map normal images into the smallest sphere around a fixed centre.

Ruff, Vandermeulen, Görnitz, Deecke, Siddiqui, Binder, Müller, Kloft 2018, ICML. φ, c, R, nu as in the paper. The
defaults are sizes and settings of the authors' code for MNIST: twice 150 passes over mini-batches of 200, here the 270
of nine digits (≠ code, which trains on one digit, some 30 mini-batches a pass).
"""

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.networks.svdd import ContrastNorm, Hypersphere, SVDDAutoencoder, SVDDEncoder
from anomaly_lab.types import Channels, Iterations, Phase, Prediction, Range, Rate, Square, Weight


class DeepSVDD(Detector):
    """Four phases: `contrast`, `pretrain`, `centre` and `sphere`.

    `contrast` measures the range of the normals, `pretrain` trains an autoencoder, `centre` takes over its encoder and
    averages its codes, `sphere` trains the encoder to map the normals close to this centre.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 32.
        in_channels: 1 or 3; selects one of the authors' two networks.
        objective: `one-class` pulls all codes to the centre, `soft-boundary` only those outside the sphere of radius R.
        nu: fraction of the normals allowed outside the sphere.
        pass_iterations: length of the phases `contrast` and `centre`, enough to see all normals once.
        pretrain_iterations: length of the phase `pretrain`; 0 starts from random weights.
        sphere_iterations: length of the phase `sphere`; the learning rate falls to a tenth after a third of it.
        warmup_iterations: iterations of the phase `sphere` before R is updated from 0.
        lr: learning rate of autoencoder and encoder.
        weight_decay: weight decay of the encoder.
        pretrain_decay: weight decay of the autoencoder, 5e-7 for CIFAR-10.

    Examples:
        >>> from anomaly_lab import detectors
        >>> for phase in detectors.DeepSVDD().phases():
        ...     print(phase.name, phase.iterations)
        contrast 270
        pretrain 40500
        centre 270
        sphere 40500
    """

    networks = ("autoencoder", "encoder", "contrast", "sphere")

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(32)] = (32, 32),
        in_channels: Channels = 1,
        objective: Literal["one-class", "soft-boundary"] = "one-class",
        nu: Annotated[float, Range("(0, 1)")] = 0.1,
        pass_iterations: Iterations = 270,
        pretrain_iterations: Annotated[int, Range("[0, 10000000]")] = 40_500,
        sphere_iterations: Iterations = 40_500,
        warmup_iterations: Annotated[int, Range("[0, 10000000]")] = 2_700,
        lr: Rate = 1e-4,
        weight_decay: Weight = 5e-7,
        pretrain_decay: Weight = 5e-4,
    ) -> None:
        if not 0 < nu < 1:
            raise ValueError(f"detector.nu={nu}: must be a fraction of the normals between 0 and 1")
        super().__init__()
        self.save_hyperparameters()
        self.autoencoder = SVDDAutoencoder(in_channels, patch_size)
        self.encoder = SVDDEncoder(in_channels, patch_size)
        self.contrast = ContrastNorm()
        self.sphere = Hypersphere(self.encoder.num_features)

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        soft = p.objective == "soft-boundary"
        return (
            Phase("contrast", p.pass_iterations, ("contrast",)),
            Phase("pretrain", p.pretrain_iterations, ("autoencoder",)),
            Phase("centre", p.pass_iterations, ("encoder", "sphere")),
            Phase("sphere", p.sphere_iterations, ("encoder", "sphere") if soft else ("encoder",)),
        )

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        p = self.settings
        return (
            Adam(self.autoencoder.parameters(), p.lr, weight_decay=p.pretrain_decay),
            Adam(self.encoder.parameters(), p.lr, weight_decay=p.weight_decay),
        )

    def contrast_step(self, batches: Tensor) -> None:
        """Extend the range of the normals by images [1, B, C, H, W] of all ranks."""
        self.contrast.measure(torch.as_tensor(self.all_gather(batches)).flatten(0, -4))

    def pretrain_step(self, batches: Tensor) -> None:
        """Take one step of the autoencoder on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            self.step_optimizer("autoencoder", self.reconstruction_loss, image)

    @torch.no_grad()
    def centre_step(self, batches: Tensor) -> None:
        """Update the centre with the codes of images [1, B, C, H, W]; at the end, move it away from 0."""
        done, span = self.iterations_done, self.schedule.span("centre")
        if done == span.start:
            self.encoder.load_state_dict(self.autoencoder.encoder.state_dict())
        self.encoder.eval()
        code = self.encoder(self.contrast(batches.flatten(0, 1)))
        self.sphere.include(torch.as_tensor(self.all_gather(code)).flatten(0, -2).float())
        if done + 1 == span.stop:
            self.sphere.push()

    def sphere_step(self, batches: Tensor) -> None:
        """Take one step of the encoder on each mini-batch of [1, B, C, H, W]."""
        p, done = self.settings, self.iterations_done - self.schedule.span("sphere").start
        for group in self._optimizer("encoder").param_groups:
            group["lr"] = p.lr if done < p.sphere_iterations / 3 else p.lr / 10
        for image in batches:
            self.step_optimizer("encoder", self.sphere_loss, image)

    def reconstruction_loss(self, image: Tensor) -> Tensor:
        """Return the sum of squared errors, averaged over the batch [B, C, H, W]."""
        contrast = self.contrast(image)
        loss: Tensor = (self.autoencoder(contrast).float() - contrast).square().flatten(1).sum(1).mean()
        self.track({"train/reconstruction": loss})
        return loss

    @property
    def couples_batch(self) -> bool:
        """R of a soft boundary is a quantile of a mini-batch."""
        return super().couples_batch or self.settings.objective == "soft-boundary"

    def sphere_loss(self, image: Tensor) -> Tensor:
        """Return the objective on images [B, C, H, W], eq. 3 or 4 of the paper; weight decay is up to the optimiser.

        After the warm-up, R is set to the (1 - nu) quantile of the distances of each mini-batch, after they have been
        used.
        """
        p, distance = self.settings, self.sphere(self.encoder(self.contrast(image)))
        loss: Tensor = distance.mean()  # eq. 4: mean ‖φ(x) - c‖²
        if p.objective == "soft-boundary":  # eq. 3: R² + 1/nu · mean max(0, ‖φ(x) - c‖² - R²)
            squared = self.sphere.radius.square()
            loss = squared + (distance - squared).clamp_min(0).mean() / p.nu
            if self.iterations_done >= self.schedule.span("sphere").start + p.warmup_iterations:
                self.sphere.radius.copy_(distance.detach().sqrt().quantile(1 - p.nu))
            self.track({"train/radius": self.sphere.radius.clone()})
        self.track({"train/sphere": loss, "train/distance": distance.mean()})
        return loss

    def predict(self, image: Tensor) -> Prediction:
        """Score: |φ(x) - c|² - R², where R is 0 for the one-class objective."""
        with torch.no_grad():
            distance = self.sphere(self.encoder(self.contrast(image)))
        return Prediction(distance - self.sphere.radius.square())
