"""Detector: the contract every method keeps, and the bookkeeping that manual optimisation needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from anomaly_lab.types import Batch, Phase, Prediction, Schedule, UserError


class Detector(pl.LightningModule, ABC):
    """A method: networks, their optimisers, the phases of its training, and one way to score.

    A subclass names its `networks`, makes one optimiser for each in that order (`configure_optimizers`), lists its
    `phases`, writes `<phase>_step(batches)` with batches [minibatches, B, C, *S] for each of them, and `predict`.

    One `training_step` is one iteration of the paper's algorithm. The number of iterations done is a buffer, so the
    phase is known after loading, when resuming, testing and predicting alike.

    Attributes:
        networks: names of the trained submodules, those without an optimiser last. Each is trained as a whole: what
            stays frozen, a pretrained teacher say, is a submodule beside them.
        accumulate: parts a mini-batch is cut into, for a smaller peak memory (without batch norm: same result).
        clip_norm: largest gradient norm of a network; None leaves gradients alone.
    """

    automatic_optimization = False
    networks: tuple[str, ...] = ()
    accumulate: int = 1
    clip_norm: float | None = None
    iteration: Tensor

    def __init__(self) -> None:
        super().__init__()
        if not self.networks:
            raise UserError(f"{type(self).__name__} has no `networks`: give the names of its trained sub-modules")
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long))
        self.iterations_done = 0  # the buffer's value, readable without waiting for the device
        self._stepping = ""
        self._tracked: dict[str, list[Tensor]] = {}

    @abstractmethod
    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        """An optimiser for each of `networks`, in that order; the last networks may have none."""

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The phases of the training, in order."""

    @abstractmethod
    def predict(self, image: Tensor) -> Prediction:
        """Score images [B, C, *S] in [-1, 1]: the one way for validation, test, prediction and export."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """`n` generated images [n, C, *S], of `generator`'s noise if given; None where a method cannot generate."""
        return None

    def discriminator_output(self, image: Tensor) -> Tensor | None:
        """The discriminator's outputs [B] for images [B, C, *S]; None where none sees images alone."""
        return None

    def load_pretrained(self) -> dict[str, Any]:
        """Read what a training needs from elsewhere, pretrained weights say, before its run folder is made.

        Returns:
            What the record says of it.

        Raises:
            UserError: it is not there, or not what was expected.
        """
        return {}

    @property
    def caveats(self) -> tuple[str, ...]:
        """What must be said wherever this detector's numbers stand: it departs from its method, or from honesty."""
        return ()

    @property
    def settings(self) -> Any:
        """The constructor's arguments, as attributes."""
        if not self.hparams:
            raise UserError(f"{type(self).__name__} does not keep its settings: call self.save_hyperparameters()")
        return self.hparams

    @property
    def schedule(self) -> Schedule:
        """The phases, as a schedule."""
        return Schedule(self.phases())

    @property
    def phase(self) -> Phase:
        """The phase of the next iteration."""
        return self.schedule.phase_at(self.iterations_done)

    @property
    def ready(self) -> bool:
        """Whether a score means something yet: not before the last phase's first iteration."""
        return self.iterations_done > self.schedule.iterations - self.schedule[-1].iterations

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.iterations_done >= self.schedule.iterations

    def refuse_gaps(self) -> None:
        """Check that there is a method for each phase and a sub-module for each network, before a run begins.

        Raises:
            UserError: one is missing; the message names it.
        """
        name, parts = type(self).__name__, {part for part, _ in self.named_children()}
        for phase in self.phases():
            if not callable(getattr(self, f"{phase.name}_step", None)):
                raise UserError(f"{name} lacks the method {phase.name}_step(batches), an iteration of '{phase.name}'")
            for network in (*self.networks, *phase.networks):
                if network not in parts:
                    raise UserError(f"{name} has no sub-module '{network}', which `networks` or a phase names")

    def on_fit_start(self) -> None:
        """Check that optimiser i trains network i; a subclass that overrides this must call it.

        Raises:
            RuntimeError: an optimiser trains other parameters than its network's, one of these is frozen, or a network
                with parameters to train has no optimiser.
        """
        for name, optimizer in zip_longest(self.networks, self._every_optimizer()):
            if name is None:
                fault = f"`configure_optimizers` returns more optimisers than there are networks {self.networks}"
            else:
                fault = _misfit(name, self.get_submodule(name), optimizer, first=not self._stepping)
            if fault:
                raise RuntimeError(f"{type(self).__name__}: {fault}")

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        phase = self.phase
        for name in self.networks:
            network, moves = self.get_submodule(name), name in phase.networks
            if network.training != moves:
                network.train(moves)
        getattr(self, f"{phase.name}_step")(batch["image"])
        self.iteration += 1
        self.iterations_done += 1

    def on_train_epoch_end(self) -> None:
        """Batch-norm statistics become the mean over ranks: every process scores with the same network."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer, reduce_op="mean"))

    def step_optimizer(self, network: str, loss: Callable[[Tensor], Tensor], batch: Tensor) -> None:
        """One optimiser step of `network` alone along the gradient of loss(batch), the mean over [B, C, *S]."""
        optimizer = self._optimizer(network)
        optimizer.zero_grad()
        if network != self._stepping:  # gradients reach this network's weights and no other's
            for name in self.networks:
                self.get_submodule(name).requires_grad_(name == network)
            self._stepping = network
        for part in batch.chunk(self.accumulate):
            value = loss(part) * (len(part) / len(batch))
            with torch.autocast(self.device.type, enabled=False):  # penalties stay in float32
                self.manual_backward(value)
        self.track({f"train/grad_{network}": self._clipped_norm(network)})
        optimizer.step()

    def _clipped_norm(self, network: str) -> Tensor:
        """Norm of the network's gradient; the gradient itself is shortened to `clip_norm`, if that is set."""
        weights = [p for p in self.get_submodule(network).parameters() if p.grad is not None]
        if self.clip_norm is not None:
            return torch.nn.utils.clip_grad_norm_(weights, self.clip_norm)
        return torch.nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])

    def _optimizer(self, network: str) -> LightningOptimizer:
        return self._every_optimizer()[self.networks.index(network)]

    def _every_optimizer(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        keys = super().load_state_dict(*args, **kwargs)
        self.iterations_done = int(self.iteration)
        return keys

    def track(self, terms: dict[str, Tensor]) -> None:
        """Note scalars of this iteration; their means are logged now and then. Nothing leaves the device."""
        for key, value in terms.items():
            self._tracked.setdefault(key, []).append(value.detach())

    def flush(self) -> dict[str, float]:
        """Means of what was tracked since the last flush, by key; forgets it."""
        means = {key: float(torch.stack(values).float().mean()) for key, values in self._tracked.items()}
        self._tracked.clear()
        return means

    def score(self, batch: Batch) -> Prediction:
        """`predict` in eval mode and float32, whatever the training's precision: a score depends on nothing else."""
        self.eval()
        with torch.autocast(self.device.type, enabled=False):
            return self.predict(batch["image"].float())

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.score(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.score(batch)


def _misfit(name: str, network: nn.Module, optimizer: LightningOptimizer | None, first: bool) -> str:
    """Why `optimizer` is not this network's, empty if it is; `first`: `step_optimizer` has not frozen weights yet."""
    weights = set(network.parameters())
    frozen = {weight for weight in weights if not weight.requires_grad}
    if optimizer is None:
        idle = len(weights - frozen)
        return f"network '{name}' has {idle} parameters to train and no optimiser" if idle else ""
    trained = {weight for group in optimizer.param_groups for weight in group["params"]}
    missing, foreign = len(weights - trained), len(trained - weights)
    if missing or foreign:
        return (
            f"the optimiser in the place of network '{name}' lacks {missing} of its {len(weights)} parameters and has "
            f"{foreign} others: `configure_optimizers` returns them in the order of `networks`"
        )
    if frozen and first:
        return f"network '{name}' has {len(frozen)} frozen parameters, which `step_optimizer` would thaw: move them out"
    return ""
