"""Estimate the duration of a training on this machine from one iteration of each phase."""

import ctypes
import gc
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import flop_registry

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.fake_pool import DrawsFromPool, filled
from anomaly_lab.devices import precision_for
from anomaly_lab.experiment import config as configuration
from anomaly_lab.types import Batch

MIN_IMAGES = 2  # images of the first measured mini-batch; one of the published size may take minutes
ITERATIONS = 2  # of a measurement: one to warm up and one to measure
SLOW = 3.0  # seconds of an iteration that is not measured again: beside them the constant cost is nothing
GPU_OPERATIONS = 20e12  # a second; a fifteenth of what an A100 has in bfloat16: small networks do not fill it
MAX_SECONDS = 1.0  # the second measurement uses as many images as this time allows


class Cost(NamedTuple):
    """What a training takes.

    Attributes:
        seconds: on this machine.
        operations: floating-point operations of its convolutions and matrix products, a multiplication and an addition
            being two. They are the same on any machine.

    Examples:
        >>> Cost(3600.0, 7.2e16).gpu_seconds
        3600.0
    """

    seconds: float
    operations: float

    @property
    def gpu_seconds(self) -> float:
        """Seconds on a GPU that sustains GPU_OPERATIONS a second."""
        return self.operations / GPU_OPERATIONS


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts floating-point operations of matrix products and convolutions, forward and backward, inside the block.

    Torch's FlopCounterMode also keeps account of modules, which fails where a step calls `torch.autograd.grad`.

    Examples:
        >>> with Operations() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> counter.total  # 2 · 2 · 3 · 4
        48
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def estimated(settings: DictConfig) -> Cost:
    """Return the estimated cost of all phases of an experiment together, see `phase_costs`.

    Examples:
        >>> from anomaly_lab.experiment.config import load
        >>> estimated(load("ganomaly_headct", ["budget=paper"])).seconds  # doctest: +SKIP
        5400.0
    """
    costs = phase_costs(settings).values()
    return Cost(sum(cost.seconds for cost in costs), sum(cost.operations for cost in costs))


def phase_seconds(settings: DictConfig) -> dict[str, float]:
    """Estimate the seconds that each phase of an experiment takes on this machine, see `phase_costs`.

    Examples:
        >>> from anomaly_lab.experiment.config import load
        >>> phase_seconds(load("fanogan_headct", ["budget=laptop"]))  # doctest: +SKIP
        {'gan': 210.0, 'encoder': 45.0}
    """
    return {name: cost.seconds for name, cost in phase_costs(settings).items()}


def phase_costs(settings: DictConfig) -> dict[str, Cost]:
    """Estimate what each phase of an experiment takes, without loading data.

    Measures one iteration of each phase on noise. If a mini-batch of the full size is slow, a smaller one is measured
    and the time is scaled up. On an idle machine the estimate is within about a factor of two, enough to choose a
    budget.

    Args:
        settings: the resolved experiment.

    Returns:
        Cost by name of the phase.

    Examples:
        >>> from anomaly_lab.experiment.config import load
        >>> phase_costs(load("fanogan_headct", ["budget=laptop"]))["gan"].seconds  # doctest: +SKIP
        210.0
    """
    costs, elapsed = {}, 0
    detector: Detector = configuration.build(settings.detector)
    detector.to(memory_format=torch.channels_last)
    whole = settings.data.batch_size
    for phase in detector.schedule:
        begun = elapsed + (phase.iterations > ITERATIONS)  # the first of a phase may do what none of the others does
        with Operations() as counted:
            seconds = _iteration(settings, detector, begun, (phase.minibatches, MIN_IMAGES))
        operations = counted.total / ITERATIONS * whole / MIN_IMAGES
        # Scaling a tiny mini-batch would scale the constant cost of an iteration as well, a first one that of starting.
        images = max(MIN_IMAGES, min(whole, int(MIN_IMAGES * MAX_SECONDS / seconds)))
        if seconds <= SLOW:
            seconds = _iteration(settings, detector, begun, (phase.minibatches, images))
        costs[phase.name] = Cost(seconds * whole / images * phase.iterations, operations * phase.iterations)
        elapsed += phase.iterations
    del detector
    _release()
    return costs


def _release() -> None:
    """Give what a large network took back to the system: the training that follows may be a small one."""
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)  # of glibc, which else keeps it for later


def _iteration(settings: DictConfig, detector: Detector, begun: int, size: tuple[int, int]) -> float:
    """Return the seconds of an iteration, the shortest of ITERATIONS: the first one warms up, any may be held up.

    Args:
        settings: the resolved experiment.
        detector: its detector.
        begun: iterations that are done.
        size: (mini-batches, images of each).
    """
    shape = (*size, settings.data.in_channels, *settings.data.patch_size)
    detector.load_state_dict({**detector.state_dict(), "iteration": torch.tensor(begun)})
    clock = _Clock()
    trainer = pl.Trainer(
        max_epochs=1,
        precision=precision_for(settings.trainer.precision),
        callbacks=[clock],
        devices=1,
        plugins=[LightningEnvironment()],  # this process alone, whatever cluster it is part of
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(detector, DrawsFromPool):
            detector.pool = filled(Path(folder) / "pool", torch.rand(shape[1:]) * 2 - 1)
        noise = _Noise(shape, _classes(settings) if detector.supervised else None)
        trainer.fit(detector, DataLoader(noise, batch_size=None))
    return clock.seconds


def _classes(settings: DictConfig) -> Tensor:
    """Return a target for each kind of case, [kinds, K]: one of each class, and one of none if that is possible."""
    targets = torch.eye(len(settings.data.classes), dtype=torch.int8)
    return targets if settings.data.target_type == "multiclass" else torch.nn.functional.pad(targets, (0, 0, 0, 1))


class _Noise(Dataset[Batch]):
    """Noise for ITERATIONS; of images in turn the given targets."""

    def __init__(self, shape: tuple[int, ...], targets: Tensor | None = None) -> None:
        self.shape, self.targets = shape, targets

    def __len__(self) -> int:
        return ITERATIONS

    def __getitem__(self, i: int) -> Batch:
        batch = Batch(image=torch.rand(self.shape) * 2 - 1)
        if self.targets is not None:
            minibatches, images = self.shape[:2]
            batch["target"] = self.targets[torch.arange(images) % len(self.targets)].expand(minibatches, -1, -1)
        return batch


class _Clock(pl.Callback):
    """Callback that measures the shortest training step in seconds."""

    seconds, began = math.inf, 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, i: int) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.seconds = min(self.seconds, time.perf_counter() - self.began)
