"""Our GANomaly as a contender: the engine's Trainer on a ready batch, in rounds.

Usage: python -m anomaly_lab.bench.ganomaly VARIANT PRECISION
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from anomaly_lab import __version__
from anomaly_lab.bench.pace import BATCH, Pace
from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.experiment import config as configuration
from anomaly_lab.pipeline import training


def main(variant: str, precision: str) -> None:
    """Train GANomaly at its published width until the input ends."""
    _, channels, *size = BATCH
    changes = (f"data.in_channels={channels}", f"data.patch_size={size}", f"detector.variant={variant}")
    words = ["budget=paper", "data.source=twin", *changes, f"trainer.precision={precision}", "trainer.accelerator=cpu"]
    settings = configuration.load("ganomaly_headct", words)
    data, detector = training.construct(settings)
    weights = {
        "generator": sum(p.numel() for p in detector.get_submodule("reconstructor").parameters()),
        "discriminator": sum(p.numel() for p in detector.get_submodule("discriminator").parameters()),
    }
    pace = Pace(version=__version__, torch=torch.__version__, threads=torch.get_num_threads(), weights=weights)
    detector.training_step = pace.keep(detector.training_step)  # type: ignore[method-assign]
    batch = {"image": torch.rand(1, *BATCH) * 2 - 1}
    batches: Any = [batch] * detector.schedule.iterations
    ready = DataLoader(batches, batch_size=None, collate_fn=lambda item: item)
    with tempfile.TemporaryDirectory() as folder:
        epochs = detector.schedule.epochs_left(0, data.epoch_length)
        trainer = training.trainer_for(settings.trainer, Path(folder), [Randomness(0)], epochs)
        trainer.fit(detector, ready)


if __name__ == "__main__":
    main(*sys.argv[1:])
