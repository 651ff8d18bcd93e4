"""Deep SVDD: an encoder learns to map the normals into the smallest sphere about a centre that was fixed beforehand.

Ruff, Vandermeulen, Görnitz, Deecke, Siddiqui, Binder, Müller, Kloft 2018, ICML. φ, c, R, nu as in the paper; sizes and
settings of the defaults are those of the authors' code for MNIST: 150 passes of 270 mini-batches of 200, twice.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.networks.svdd import ContrastNorm, Hypersphere, SVDDAutoencoder, SVDDEncoder
from anomaly_lab.types import Channels, Iterations, Phase, Prediction, Range, Rate, Square, Weight


class DeepSVDD(Detector):
    """Four phases.

    `contrast` measures the normals' range, `pretrain` trains an autoencoder, `centre` takes its encoder and the mean of
    its codes, `sphere` draws the codes to it.

    Args:
        patch_size: side of the square image, a power of two >= 32, twice.
        in_channels: 1 or 3; decides which of the authors' two networks it is.
        objective: `one-class` draws all codes to the centre, `soft-boundary` only those outside of R.
        nu: fraction of the normals that may be outside of R.
        pass_iterations: of the phases `contrast` and `centre`; enough to see all normals once.
        pretrain_iterations: of the phase `pretrain`; 0 starts from random weights.
        sphere_iterations: of the phase `sphere`; its learning rate falls to a tenth after a third of it.
        warmup_iterations: of the phase `sphere` before R leaves 0.
        lr: learning rate of both.
        weight_decay: of the encoder; the autoencoder's is `pretrain_decay`.
        pretrain_decay: weight decay of the autoencoder, 5e-7 for CIFAR-10.
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
            raise ValueError("detector.nu is a fraction of the normals, between 0 and 1")
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
        """Widen the range by [1, B, C, H, W], all ranks' parts of it."""
        self.contrast.measure(torch.as_tensor(self.all_gather(batches)).flatten(0, -4))

    def pretrain_step(self, batches: Tensor) -> None:
        """The autoencoder moves once on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            self.step_optimizer("autoencoder", self.reconstruction_loss, image)

    @torch.no_grad()
    def centre_step(self, batches: Tensor) -> None:
        """Codes of [1, B, C, H, W] move the centre; at last it is kept away from 0."""
        done, span = self.iterations_done, self.schedule.span("centre")
        if done == span.start:
            self.encoder.load_state_dict(self.autoencoder.encoder.state_dict())
        self.encoder.eval()
        code = self.encoder(self.contrast(batches.flatten(0, 1)))
        self.sphere.include(torch.as_tensor(self.all_gather(code)).flatten(0, -2).float())
        if done + 1 == span.stop:
            self.sphere.push()

    def sphere_step(self, batches: Tensor) -> None:
        """The encoder moves once on each mini-batch of [1, B, C, H, W]."""
        p, done = self.settings, self.iterations_done - self.schedule.span("sphere").start
        for group in self._optimizer("encoder").param_groups:
            group["lr"] = p.lr if done < p.sphere_iterations / 3 else p.lr / 10
        for image in batches:
            self.step_optimizer("encoder", self.sphere_loss, image)

    def reconstruction_loss(self, image: Tensor) -> Tensor:
        """Sum of squared errors, mean over the batch [B, C, H, W]."""
        contrast = self.contrast(image)
        loss: Tensor = (self.autoencoder(contrast).float() - contrast).square().flatten(1).sum(1).mean()
        self.track({"train/reconstruction": loss})
        return loss

    def sphere_loss(self, image: Tensor) -> Tensor:
        """The objective on images [B, C, H, W] (equations 3 and 4 of the paper, weight decay apart).

        After the warm-up R becomes the (1 - nu) quantile of this mini-batch's distances, once they have been used.
        """
        p, distance = self.settings, self.sphere(self.encoder(self.contrast(image)))
        loss: Tensor = distance.mean()
        if p.objective == "soft-boundary":
            squared = self.sphere.radius.square()
            loss = squared + (distance - squared).clamp_min(0).mean() / p.nu
            if self.iterations_done >= self.schedule.span("sphere").start + p.warmup_iterations:
                self.sphere.radius.copy_(distance.detach().sqrt().quantile(1 - p.nu))
            self.track({"train/radius": self.sphere.radius.clone()})
        self.track({"train/sphere": loss, "train/distance": distance.mean()})
        return loss

    def predict(self, image: Tensor) -> Prediction:
        """Score: |φ(x) - c|², minus R², which is 0 for the one-class objective."""
        with torch.no_grad():
            distance = self.sphere(self.encoder(self.contrast(image)))
        return Prediction(distance - self.sphere.radius.square())
