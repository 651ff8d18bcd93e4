"""Detector: the interface of every method, and the bookkeeping that manual optimisation needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import zip_longest
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from anomaly_lab.detectors.families.shared_draws import SharedDraws
from anomaly_lab.devices import rounding
from anomaly_lab.types import Batch, Phase, Prediction, Schedule, UserError

FUSED = (Adam, AdamW, SGD, Adagrad)  # optimisers that torch has as one kernel of CUDA


class Detector(pl.LightningModule, ABC):
    """A method: networks, their optimisers, the phases of its training, and one way to score.

    A subclass lists its `networks`, returns one optimiser for each in that order (`configure_optimizers`) and lists its
    `phases`. It implements `predict`, and `<phase>_step(batches)` for each phase, with batches
    [minibatches, B, C, *S].

    One `training_step` is one iteration of the paper's algorithm. The number of iterations done is a buffer, so the
    phase is known after loading a checkpoint, whether to resume, test or predict.

    Attributes:
        networks: names of the trained submodules, those without an optimiser last. Each is trained as a whole; what
            stays frozen, such as a pretrained teacher, is a separate submodule.
        components: names of the terms of the score, each higher = more anomalous, if `predict` returns them.
        supervised: whether it learns from labels: it needs `data.supervision=labels`, and implements
            `<phase>_step(batches, targets)` with targets [minibatches, B, K] as in `Batch`.
        accumulate: number of parts a mini-batch is split into to reduce peak memory (without batch norm: same result).
        clip_norm: maximum gradient norm of a network; None disables clipping.
        uncompiled: names of networks that `torch.compile` leaves alone: their forward pass is differentiated twice, as
            by a gradient penalty through autograd, or their graph serves two backward passes.
        rescored: turns image and prediction into the prediction that `score` returns, where the score is made of the
            map; None for the detector's own.
        compilation: how `torch.compile` is called for the other networks; None for not at all.
        graph_batch: number of images that a graph of `predict` takes, where its code runs over them one by one; None
            for any. Elsewhere `predict` says image.shape[0], not len(image), which a graph would keep as a number.

        map_tolerance: largest difference of an exported map, as a share of the largest value, that rounding explains.
            float32 has seven digits; a gradient through max-pooling jumps where two values are equal but for rounding.

    Examples:
        A complete method, to be saved as `anomaly_lab/detectors/mean_image.py`:

        >>> class MeanImage(Detector):
        ...     networks = ("mean",)
        ...
        ...     def __init__(self, learn_iterations: int = 100) -> None:
        ...         super().__init__()
        ...         self.save_hyperparameters()
        ...         self.mean = nn.Linear(1, 64 * 64, bias=False)
        ...
        ...     def phases(self) -> tuple[Phase, ...]:
        ...         return (Phase("learn", self.settings.learn_iterations, self.networks),)
        ...
        ...     def configure_optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        ...         return (torch.optim.Adam(self.mean.parameters()),)
        ...
        ...     def learn_step(self, batches: Tensor) -> None:
        ...         self.step_optimizer("mean", lambda image: self.residual(image).mean(), batches[0])
        ...
        ...     def residual(self, image: Tensor) -> Tensor:
        ...         return (image - self.mean.weight.view(1, 1, 64, 64)).square()
        ...
        ...     def predict(self, image: Tensor) -> Prediction:
        ...         with torch.no_grad():
        ...             anomaly_map = self.residual(image)
        ...         return Prediction(anomaly_map.flatten(1).mean(1), anomaly_map)
        >>> detector = MeanImage()
        >>> detector.phase.name, detector.score({"image": torch.zeros(2, 1, 64, 64)}).anomaly_score.shape
        ('learn', torch.Size([2]))
    """

    automatic_optimization = False
    networks: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    supervised: ClassVar[bool] = False
    accumulate: int = 1
    clip_norm: float | None = None
    uncompiled: tuple[str, ...] = ()
    compilation: dict[str, Any] | None = None
    graph_batch: ClassVar[int | None] = None
    map_tolerance: ClassVar[float] = 1e-4
    rescored: Callable[[Tensor, Prediction], Prediction] | None = None
    iteration: Tensor

    def __init__(self) -> None:
        super().__init__()
        if not self.networks:
            raise UserError(f"{type(self).__name__} has no `networks`: give the names of its trained sub-modules")
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long))
        self.iterations_done = 0  # value of the buffer, readable without waiting for the device
        self._stepping = ""
        self.batch_rows: Tensor | None = None  # of the store, [minibatches, B], that this iteration draws, if known
        self._compiled: list[tuple[nn.Module, Callable[..., Any]]] = []  # networks and their compiled forward passes
        self.tracked: dict[str, list[Tensor]] = {}  # values since the last flush, for the record

    @abstractmethod
    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        """An optimiser for each of `networks`, in that order; the last networks may have none."""

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """Return the phases of the training, in order."""

    @abstractmethod
    def predict(self, image: Tensor) -> Prediction:
        """Score images [B, C, *S] in [-1, 1]; used for validation, test, prediction and export alike."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Return `n` generated images [n, C, *S], with noise from `generator`; None if the method cannot generate."""
        return None

    @property
    def refits(self) -> bool:
        """Whether `refitted` works: the method is fitted in seconds, and nothing in it was trained beforehand."""
        return False

    def refitted(self, batches: Iterable[Tensor]) -> "Detector":
        """Return a detector of the same settings fitted to other mini-batches [B, C, *S], for cross-fitting."""
        raise NotImplementedError(f"{type(self).__name__} takes longer than seconds to be fitted")

    def discriminator_output(self, image: Tensor) -> Tensor | None:
        """Return the discriminator's outputs [B] for images [B, C, *S], higher = more real.

        None if no discriminator takes images alone.
        """
        return None

    def load_pretrained(self) -> dict[str, Any]:
        """Read external inputs of the training, such as pretrained weights; called before the run folder is created.

        Returns:
            What the record of the run says about them.

        Raises:
            UserError: a file is missing or not what was expected.
        """
        return {}

    @property
    def no_graph(self) -> str:
        """Why `predict` cannot be exported as a graph of tensor operations; empty if it can."""
        return ""

    @property
    def caveats(self) -> tuple[str, ...]:
        """Warnings to print wherever this detector's numbers appear, such as a departure from the published method."""
        return ()

    @property
    def settings(self) -> Any:
        """Arguments of the constructor, as attributes."""
        if not self.hparams:
            raise UserError(f"{type(self).__name__} does not keep its settings: call self.save_hyperparameters()")
        return self.hparams

    @property
    def schedule(self) -> Schedule:
        """The phases as a schedule."""
        return Schedule(self.phases())

    @property
    def phase(self) -> Phase:
        """Phase of the next iteration."""
        return self.schedule.phase_at(self.iterations_done)

    @property
    def ready(self) -> bool:
        """Whether scores are meaningful yet: after the first iteration of the last phase."""
        return self.iterations_done > self.schedule.iterations - self.schedule[-1].iterations

    @property
    def finished(self) -> bool:
        """Whether all iterations are done."""
        return self.iterations_done >= self.schedule.iterations

    def refuse_gaps(self) -> None:
        """Check that there is a method for each phase and a sub-module for each network, before a run begins.

        Raises:
            UserError: one is missing; the message names it.
        """
        name, parts = type(self).__name__, {part for part, _ in self.named_children()}
        for phase in self.phases():
            if phase.cases != "normal" and not self.supervised:
                raise UserError(f"{name}: phase '{phase.name}' draws labelled anomalies; set `supervised = True`")
            if not callable(getattr(self, f"{phase.name}_step", None)):
                raise UserError(f"{name} lacks the method {phase.name}_step(batches), an iteration of '{phase.name}'")
            for network in (*self.networks, *phase.networks):
                if network not in parts:
                    raise UserError(f"{name} has no sub-module '{network}', which `networks` or a phase names")

    @property
    def scores_probabilities(self) -> bool:
        """Whether the score is a probability, so that no threshold lies above 1."""
        return False

    @property
    def couples_batch(self) -> bool:
        """Whether the loss of an image depends on others that several processes group otherwise than one does.

        Batch norm is that of the global batch under any number of processes (`SharedDraws`), unless a mini-batch is
        split into parts: these are made of other images then.
        """
        return self.accumulate > 1 and any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules()
        )

    def on_fit_start(self) -> None:
        """Check that optimiser i trains network i; a subclass that overrides this must call it.

        Raises:
            RuntimeError: an optimiser trains other parameters than those of its network, some of these are frozen, or a
                network with trainable parameters has no optimiser.
        """
        for name, optimizer in zip_longest(self.networks, self._every_optimizer()):
            if name is None:
                fault = f"`configure_optimizers` returns more optimisers than there are networks {self.networks}"
            else:
                fault = _misfit(name, self.get_submodule(name), optimizer, first=not self._stepping)
            if fault:
                raise RuntimeError(f"{type(self).__name__}: {fault}")
            if optimizer and isinstance(optimizer.optimizer, FUSED):  # one kernel instead of a dozen
                for group in optimizer.param_groups:
                    if group["fused"] is None and all(weight.is_cuda for weight in group["params"]):
                        group["fused"] = True
        self._compile()

    def _compile(self) -> None:
        """Compile the forward passes that training steps use; weights and their names stay as they are."""
        self._compiled.clear()
        if self.compilation is None:
            return
        if self.trainer.world_size > 1:
            raise UserError("compile works with one process; set compile=never or trainer.devices=1")
        for name in self.networks:
            if name not in self.uncompiled and any(True for _ in self.get_submodule(name).parameters()):
                network = self.get_submodule(name)
                self._compiled.append((network, torch.compile(network.forward, **self.compilation)))

    @contextmanager
    def _compiled_networks(self) -> Iterator[None]:
        """Let networks run compiled inside the block alone: scores and samples come from the code as it is written."""
        if not self._compiled:
            yield
            return
        from torch._dynamo.exc import BackendCompilerFailed  # slow to import

        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        for network, forward in self._compiled:
            network.forward = forward
        try:
            yield
        except BackendCompilerFailed as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"torch.compile does not work here ({reason}); set compile=never") from error
        finally:
            for network, _ in self._compiled:
                del network.forward

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        phase = self.phase
        for name in self.networks:
            network, is_trained = self.get_submodule(name), name in phase.networks
            if network.training != is_trained:
                network.train(is_trained)
        shared, compiled = self._shared_draws(batch["image"].shape[1]), self._compiled_networks()
        targets = (batch["target"],) if self.supervised else ()
        self.batch_rows = batch.get("row")
        with shared, compiled, rounding(self.device, strict=False):
            getattr(self, f"{phase.name}_step")(batch["image"], *targets)
        self.iteration += 1
        self.iterations_done += 1

    def on_train_epoch_end(self) -> None:
        self.average_buffers()

    def average_buffers(self) -> None:
        """Average statistics over ranks, so that every process scores with the same network and a file holds all."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer, reduce_op="mean"))

    def step_optimizer(self, network: str, loss: Callable[..., Tensor], *batches: Tensor) -> None:
        """Take one optimiser step of `network` alone on the gradient of `loss(*batches)`.

        Args:
            network: name of the network.
            loss: batches, each [B, …] -> scalar, a mean over the B.
            batches: images [B, C, *S], and what belongs to each of them, such as targets [B, K].
        """
        optimizer = self._optimizer(network)
        optimizer.zero_grad()
        if network != self._stepping:  # only the weights of this network get gradients
            for name in self.networks:
                self.get_submodule(name).requires_grad_(name == network)
            self._stepping = network
        for parts in zip(*(batch.tensor_split(self._parts(len(batch))) for batch in batches), strict=True):
            value = loss(*parts) * (len(parts[0]) / len(batches[0]))
            with torch.autocast(self.device.type, enabled=False):  # gradient penalties need float32
                self.manual_backward(value)
        self._average_over_ranks(network)
        self.track({f"train/grad_{network}": self._clipped_norm(network)})
        optimizer.step()

    def _shared_draws(self, batch_size: int) -> AbstractContextManager[object]:
        """Let noise and batch norm of a step be those of the global batch, of which every process has its share."""
        if self.trainer.world_size == 1:
            return nullcontext()
        rows = {batch_size, *self.drawn_rows(batch_size)}
        sizes = rows | {len(part) for n in rows for part in torch.empty(n).tensor_split(self._parts(n))}
        return SharedDraws(self.trainer.global_rank, self.trainer.world_size, sizes)

    def _parts(self, n: int) -> int:
        """Return the number of parts that n images are split into; batch norm of vectors needs two images in each."""
        if self.accumulate == 1:
            return 1
        fewest = 2 if any(isinstance(module, nn.BatchNorm1d) for module in self.modules()) else 1
        return max(1, min(self.accumulate, n // fewest))

    def drawn_rows(self, batch_size: int) -> set[int]:
        """Return the numbers of rows, besides `batch_size` itself, for which a step draws noise or drops out.

        Draws of other numbers of rows are the same in all processes.
        """
        return set()

    def _average_over_ranks(self, network: str) -> None:
        """Replace the gradients of a network by their means over all processes, in one message."""
        if self.trainer.world_size == 1:
            return
        gradients = [p.grad for p in self.get_submodule(network).parameters() if p.grad is not None]
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        whole = torch.as_tensor(self.trainer.strategy.reduce(whole, reduce_op="mean"))
        for gradient, part in zip(gradients, torch.split(whole, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _clipped_norm(self, network: str) -> Tensor:
        """Return the norm of the network's gradient, and clip the gradient to `clip_norm` if that is set."""
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
        """Record scalars of this iteration; their means are logged from time to time. Nothing leaves the device."""
        for key, value in terms.items():
            self.tracked.setdefault(key, []).append(value.detach())

    def flush(self) -> dict[str, float]:
        """Return the means of the scalars tracked since the last call by key, and clear them; waits once a device."""
        means = {key: torch.stack(values).float().mean() for key, values in self.tracked.items()}
        self.tracked.clear()
        read: dict[str, float] = {}
        for device in {mean.device for mean in means.values()}:
            here = [key for key, mean in means.items() if mean.device == device]
            read |= zip(here, torch.stack([means[key] for key in here]).tolist(), strict=True)
        return {key: read[key] for key in means}

    def score(self, batch: Batch) -> Prediction:
        """Call `predict` in eval mode and float32, whatever the training precision, so that scores are reproducible.

        A GPU, too, multiplies with all digits there.
        """
        self.eval()
        with torch.autocast(self.device.type, enabled=False), rounding(self.device, strict=True):
            image = batch["image"].float()
            own = self.predict(image)
            return own if self.rescored is None else self.rescored(image, own)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms of what `score` returns: the detector's own, or those of what makes a score of its map."""
        of_map: tuple[str, ...] = getattr(self.rescored, "components", ())
        return of_map or self.components

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.score(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.score(batch)


def _misfit(name: str, network: nn.Module, optimizer: LightningOptimizer | None, first: bool) -> str:
    """Return why `optimizer` does not fit `network`, or an empty string; `first`: no step has frozen weights yet."""
    weights = set(network.parameters())
    frozen = {weight for weight in weights if not weight.requires_grad}
    if optimizer is None:
        trainable = len(weights - frozen)
        return f"network '{name}' has {trainable} parameters to train and no optimiser" if trainable else ""
    trained = {weight for group in optimizer.param_groups for weight in group["params"]}
    missing, foreign = len(weights - trained), len(trained - weights)
    if missing or foreign:
        return (
            f"the optimiser in the place of network '{name}' lacks {missing} of its {len(weights)} parameters and has "
            f"{foreign} others: `configure_optimizers` must return optimisers in the order of `networks`"
        )
    if frozen and first:
        return (
            f"network '{name}' has {len(frozen)} frozen parameters, which `step_optimizer` would unfreeze: "
            "move them to a submodule outside `networks`"
        )
    return ""
