"""How long a training would take on this machine, measured from one iteration of each of its phases."""

import tempfile
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset

from anomaly_lab import config as configuration
from anomaly_lab.detector import Detector
from anomaly_lab.fakepool import DrawsFromPool, filled
from anomaly_lab.types import Batch

IMAGES = 2  # of a measured mini-batch: the published sizes may need minutes for a whole one


def estimated_seconds(settings: DictConfig) -> float:
    """Seconds all phases of an experiment would take, see `phase_seconds`."""
    return sum(phase_seconds(settings).values())


def phase_seconds(settings: DictConfig) -> dict[str, float]:
    """Seconds each phase of an experiment would take, without its data's loading.

    One iteration of each phase on mini-batches of two images of noise, scaled to the batch size and to the phase's
    length: right to perhaps a factor of two, enough to choose a budget.
    """
    seconds, begun = {}, 0
    detector: Detector = configuration.build(settings.detector)
    detector.to(memory_format=torch.channels_last)
    for phase in detector.schedule:
        shape = (phase.minibatches, IMAGES, settings.data.in_channels, *settings.data.patch_size)
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
        seconds[phase.name] = clock.seconds * settings.data.batch_size / IMAGES * phase.iterations
        begun += phase.iterations
    return seconds


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
