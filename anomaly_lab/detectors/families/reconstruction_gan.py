"""Base class of GANomaly and Skip-GANomaly: a reconstructing network and a discriminator are trained in turns."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.gan import GANDetector
from anomaly_lab.losses.ganomaly import DiscriminatorOutput
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.networks.normalisation import batch_statistics
from anomaly_lab.networks.stages import initialise
from anomaly_lab.types import Phase

BnMode = Literal["eval", "batch"]
MIN_DISCRIMINATOR_LOSS = 1e-5  # below this loss, the discriminator is re-initialised


class ReconstructionGAN(GANDetector):
    """One phase, `gan`: a step of the reconstructor, then one of the discriminator on the same reconstructions.

    Both gradients are those of the weights at the start of the iteration, as in the authors' code. The discriminator
    therefore processes images and reconstructions only once for both losses (≠ code: twice, with the same outputs). A
    discriminator whose loss is almost 0 is re-initialised; `resets` counts this.

    A subclass creates `reconstructor` and `discriminator`, implements their losses and `predict`, and has the settings
    `gan_iterations`, `lr` (of both networks) and `bn_mode`.

    Attributes:
        outputs: the discriminator's outputs for images and reconstructions of each part of the mini-batch, with a graph
            for its weights. The reconstructor's loss appends them, the discriminator's loss removes them.
        losses: losses of the discriminator in this iteration, detached.
    """

    networks = ("reconstructor", "discriminator")
    reconstructor: nn.Module
    discriminator: nn.Module
    resets: Tensor

    def __init__(self, augment_d: AugmentD = "none") -> None:
        super().__init__(augment_d)
        self.register_buffer("resets", torch.zeros((), dtype=torch.long))
        self.outputs: list[tuple[DiscriminatorOutput, DiscriminatorOutput]] = []
        self.losses: list[Tensor] = []

    @abstractmethod
    def reconstructor_loss(self, real: Tensor) -> Tensor:
        """Return the reconstructor's loss on images [B, C, H, W]; it must call `adversarial` once."""

    @abstractmethod
    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Return the discriminator's loss; it removes the first item of `outputs` and appends its value to `losses`."""

    @property
    def caveats(self) -> tuple[str, ...]:
        """Warnings to print wherever this detector's numbers appear."""
        caveat = "bn_mode=batch: scores use the statistics of their batch, so they depend on the order of the test set"
        return (caveat,) if self.settings.bn_mode == "batch" else ()

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("gan", self.settings.gan_iterations, self.networks),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        networks = (self.reconstructor, self.discriminator)
        return tuple(Adam(net.parameters(), self.settings.lr, betas=(0.5, 0.999), fused=True) for net in networks)

    def gan_step(self, batches: Tensor) -> None:
        """Take one step of each network on each mini-batch of [1, B, C, H, W]."""
        for real in batches:
            self.step_optimizer("reconstructor", self.reconstructor_loss, real)
            self.step_optimizer("discriminator", self.discriminator_loss, real)
            self._reset_collapsed_discriminator()

    def adversarial(
        self,
        real: Tensor,
        reconstruction: Tensor,
        distance: Callable[[DiscriminatorOutput, DiscriminatorOutput], Tensor],
    ) -> Tensor:
        """Return the adversarial term of the reconstructor's loss; keep the discriminator's outputs for its own loss.

        Args:
            real: images, [B, C, H, W].
            reconstruction: their reconstructions, [B, C, H, W].
            distance: outputs for images and for reconstructions -> scalar.

        Returns:
            `distance` as a scalar with a graph for the reconstructions only.
        """
        copy = reconstruction.detach().requires_grad_()
        self.discriminator.requires_grad_(True)  # `step_optimizer` has frozen it; its own loss needs the graph
        images = self.augmented_alike(real, copy)
        of_real, of_fake = (DiscriminatorOutput(*self.discriminator(image)) for image in images)
        self.outputs.append((of_real, of_fake))
        value = distance(DiscriminatorOutput(*(output.detach() for output in of_real)), of_fake)
        with torch.autocast(self.device.type, enabled=False):
            (slope,) = torch.autograd.grad(value, copy, retain_graph=True)
        # The second term is 0; it carries the gradient `slope` to the reconstructions.
        return value.detach() + ((reconstruction - copy.detach()).float() * slope.float()).sum()

    def _reset_collapsed_discriminator(self) -> None:
        """Re-initialise a discriminator whose loss is almost 0, equally on all ranks; its optimiser state is kept."""
        loss, single_process = torch.stack(self.losses).mean(), self.trainer.world_size == 1
        self.losses.clear()
        if not single_process:
            loss = self.trainer.strategy.reduce(loss, reduce_op="mean")
        collapsed = loss < MIN_DISCRIMINATOR_LOSS
        if self.device.type != "cpu":
            self._initialise_where(collapsed)
        elif collapsed:
            initialise(self.discriminator)
            if not single_process:  # each rank has drawn its own weights
                self.discriminator.load_state_dict(self.trainer.strategy.broadcast(self.discriminator.state_dict()))
        self.resets += collapsed
        self.track({"train/resets": self.resets.float()})

    @torch.no_grad()
    def _initialise_where(self, collapsed: Tensor) -> None:
        """Draw new weights and take them if the scalar `collapsed` says so; cheaper for a GPU than to be asked for it.

        All ranks draw the same: each iteration begins with the seed that they share.
        """
        weights = [*self.discriminator.parameters()]
        before = [weight.clone() for weight in weights]
        initialise(self.discriminator)
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(torch.where(collapsed, weight, old))

    @contextlib.contextmanager
    def scoring_mode(self) -> Iterator[None]:
        """Disable gradients and set batch norm as `bn_mode` says.

        ≠ code: with `batch`, the authors' code also updates the running statistics with the test images. It never uses
        them, so the scores are the same; here they stay as training left them.
        """
        with torch.no_grad(), contextlib.ExitStack() as stack:
            if self.settings.bn_mode == "batch":
                stack.enter_context(batch_statistics(self.reconstructor, self.discriminator))
            yield
