"""Seed every iteration by seed and iteration, so that a resumed training continues with the same numbers."""

import random

import numpy as np
import pytorch_lightning as pl
import torch

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Seed


class Randomness(RunCallback):
    """Seeds Python, NumPy and torch (all devices) before each iteration, so no generator state has to be saved.

    Seeding once per epoch would not suffice: Lightning creates the loader's iterator, which draws a random number,
    sometimes before the start of the epoch and sometimes after it. All processes have the same seed: of the numbers
    drawn for a batch, each takes those of its own rows (`SharedDraws`).

    Args:
        seed: of the experiment.

    Examples:
        >>> callback = Randomness(seed=0)
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False, accelerator="cpu")
        >>> callback in trainer.callbacks
        True
    """

    changes_scores = True

    def __init__(self, seed: Seed = 0) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Detector)
        entropy = [self.seed, pl_module.iterations_done, 0]
        for_python, for_numpy, for_torch = (int(s) for s in np.random.SeedSequence(entropy).generate_state(3))
        random.seed(for_python)
        np.random.seed(for_numpy)
        torch.default_generator.manual_seed(for_torch)  # torch.manual_seed visits every backend, which takes 2 ms
        if torch.cuda.is_available():
            torch.cuda.manual_seed(for_torch)
