"""How long a training would take on this machine, measured from one iteration of each of its phases."""

import tempfile
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.fake_pool import DrawsFromPool, filled
from anomaly_lab.experiment import config as configuration
from anomaly_lab.types import Batch

MIN_IMAGES = 2  # images of a measured mini-batch: the published sizes may need minutes for a whole one
MAX_SECONDS = 1.0  # seconds; a mini-batch is measured as large as it may be to take no longer


def estimated_seconds(settings: DictConfig) -> float:
    """Seconds all phases of an experiment would take, see `phase_seconds`."""
    return sum(phase_seconds(settings).values())


def phase_seconds(settings: DictConfig) -> dict[str, float]:
    """Seconds each phase of an experiment would take, without its data's loading.

    One iteration of each phase on noise: of whole mini-batches where they are quick, of a part of them, scaled up,
    where they are not. Right to perhaps a factor of two on a machine that is free, enough to choose a budget.
    """
    seconds, begun = {}, 0
    detector: Detector = configuration.build(settings.detector)
    detector.to(memory_format=torch.channels_last)
    whole = settings.data.batch_size
    for phase in detector.schedule:
        images = MIN_IMAGES
        taken = _iteration(settings, detector, begun, (phase.minibatches, images))
        if (affordable := min(whole, int(images * MAX_SECONDS / taken))) > images:
            images = affordable  # what an iteration costs apart from its images would be scaled up with them
            taken = _iteration(settings, detector, begun, (phase.minibatches, images))
        seconds[phase.name] = taken * whole / images * phase.iterations
        begun += phase.iterations
    return seconds


def _iteration(settings: DictConfig, detector: Detector, begun: int, size: tuple[int, int]) -> float:
    """Seconds of the iteration after `begun` on so many mini-batches of so many images."""
    shape = (*size, settings.data.in_channels, *settings.data.patch_size)
    detector.load_state_dict({**detector.state_dict(), "iteration": torch.tensor(begun)})
    clock = _Clock()
    trainer = pl.Trainer(
        max_epochs=1,
        precision=settings.trainer.precision,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(detector, DrawsFromPool):
            detector.pool = filled(Path(folder) / "pool", torch.rand(shape[1:]) * 2 - 1)
        trainer.fit(detector, DataLoader(_Noise(shape), batch_size=None))
    return clock.seconds


class _Noise(Dataset[Batch]):
    """Two iterations: one to warm up, one to measure."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> Batch:
        return Batch(image=torch.rand(self.shape) * 2 - 1)


class _Clock(pl.Callback):
    """Seconds of the last training step."""

    seconds = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, i: int) -> None:
        self.seconds = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.seconds = time.perf_counter() - self.seconds
