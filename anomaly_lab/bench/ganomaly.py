"""This package's GANomaly as a contender of the peer benchmark: the Trainer on one fixed batch, in timed turns.

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
    """Train GANomaly at its published width until standard input is closed; see `pace` for the protocol.

    Args:
        variant: value of `detector.variant`: whose losses to use ("official", "anomalib", …).
        precision: value of `trainer.precision`, as "32-true" or "bf16-mixed".
    """
    _, channels, *size = BATCH
    model = (f"data.in_channels={channels}", f"data.patch_size={size}", f"detector.variant={variant}")
    device = (f"trainer.precision={precision}", "trainer.accelerator=cpu")
    settings = configuration.load("ganomaly_headct", ["budget=paper", "data.source=twin", *model, *device])
    data, detector = training.construct(settings)
    weights = {
        "generator": sum(p.numel() for p in detector.get_submodule("reconstructor").parameters()),
        "discriminator": sum(p.numel() for p in detector.get_submodule("discriminator").parameters()),
    }
    pace = Pace(version=__version__, torch=torch.__version__, threads=torch.get_num_threads(), weights=weights)
    detector.training_step = pace.keep(detector.training_step)  # type: ignore[method-assign]
    batch = {"image": torch.rand(1, *BATCH) * 2 - 1}
    batches: Any = [batch] * detector.schedule.iterations
    loader = DataLoader(batches, batch_size=None, collate_fn=lambda item: item)
    with tempfile.TemporaryDirectory() as folder:
        epochs = detector.schedule.epochs_left(0, data.epoch_length)
        trainer = training.trainer_for(settings.trainer, Path(folder), [Randomness(0)], epochs)
        trainer.fit(detector, loader)


if __name__ == "__main__":
    main(*sys.argv[1:])
