"""What GANomaly and Skip-GANomaly share: a network that reconstructs and a discriminator learn in turns."""

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
MIN_DISCRIMINATOR_LOSS = 1e-5  # a discriminator's loss below which it teaches nothing any more


class ReconstructionGAN(GANDetector):
    """One phase, `gan`: the reconstructor moves, then the discriminator on the reconstructions made on the way.

    Both gradients are of the weights at the iteration's beginning, as in the authors' code, so the discriminator looks
    once at images and once at reconstructions for both losses (≠ code: twice, for the same answers). One whose loss is
    next to nothing gets fresh weights; `resets` counts it.

    A subclass makes `reconstructor` and `discriminator`, writes their losses and `predict`, and has the settings
    `gan_iterations`, `lr` (of both) and `bn_mode`.

    Attributes:
        outputs: of images and of reconstructions, with a graph for the discriminator's weights; the reconstructor's
            loss leaves them for the discriminator's, for each part of the mini-batch.
        losses: what the discriminator's loss leaves of itself.
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
        """Of images [B, C, H, W]; asks `adversarial` once."""

    @abstractmethod
    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Of the first of `outputs`, which it takes; appends itself, detached, to `losses`."""

    @property
    def caveats(self) -> tuple[str, ...]:
        """What must be said wherever this detector's numbers stand."""
        batch = "bn_mode=batch: scores use the statistics of their batch, so they depend on the order of the test set"
        return (batch,) if self.settings.bn_mode == "batch" else ()

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("gan", self.settings.gan_iterations, self.networks),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        moved = (self.reconstructor, self.discriminator)
        return tuple(Adam(net.parameters(), self.settings.lr, betas=(0.5, 0.999), fused=True) for net in moved)

    def gan_step(self, batches: Tensor) -> None:
        """Each network moves once on each mini-batch of [1, B, C, H, W]."""
        for real in batches:
            self.step_optimizer("reconstructor", self.reconstructor_loss, real)
            self.step_optimizer("discriminator", self.discriminator_loss, real)
            self._renew_if_beaten()

    def adversarial(
        self,
        real: Tensor,
        reconstruction: Tensor,
        distance: Callable[[DiscriminatorOutput, DiscriminatorOutput], Tensor],
    ) -> Tensor:
        """`distance` of what the discriminator says of images and of their reconstructions, [B, C, H, W] both.

        A scalar with a graph for the reconstructions alone; the discriminator's is kept for its own loss.
        """
        copy = reconstruction.detach().requires_grad_()
        self.discriminator.requires_grad_(True)  # `step_optimizer` has frozen it; its turn comes
        images = self.augmented_alike(real, copy)
        of_real, of_fake = (DiscriminatorOutput(*self.discriminator(image)) for image in images)
        self.outputs.append((of_real, of_fake))
        value = distance(DiscriminatorOutput(*(said.detach() for said in of_real)), of_fake)
        with torch.autocast(self.device.type, enabled=False):
            (slope,) = torch.autograd.grad(value, copy, retain_graph=True)
        return value.detach() + ((reconstruction - copy.detach()).float() * slope.float()).sum()

    def _renew_if_beaten(self) -> None:
        """Fresh weights, the same on all ranks, for a beaten discriminator; its optimiser goes on, as in the code."""
        loss, alone = torch.stack(self.losses).mean(), self.trainer.world_size == 1
        self.losses.clear()
        if not alone:
            loss = self.trainer.strategy.reduce(loss, reduce_op="mean")
        if loss < MIN_DISCRIMINATOR_LOSS:
            initialise(self.discriminator)
            if not alone:  # each rank has drawn its own
                self.discriminator.load_state_dict(self.trainer.strategy.broadcast(self.discriminator.state_dict()))
            self.resets += 1
        self.track({"train/resets": self.resets.float()})

    @contextlib.contextmanager
    def scoring_mode(self) -> Iterator[None]:
        """No gradients, and batch norm as `bn_mode` says.

        ≠ code: with `batch`, the authors' running means follow the test images. They use them nowhere, so their scores
        are these; ours stay as training left them.
        """
        with torch.no_grad(), contextlib.ExitStack() as stack:
            if self.settings.bn_mode == "batch":
                stack.enter_context(batch_statistics(self.reconstructor, self.discriminator))
            yield
