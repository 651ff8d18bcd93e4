"""Randomness that resumes by itself: every iteration's is a pure function of seed, iteration and rank."""

import random

import numpy as np
import pytorch_lightning as pl
import torch

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Seed


class Randomness(RunCallback):
    """Seeds Python, NumPy and torch (all devices) before each iteration: no generator's state need be saved.

    At an epoch's start would not do: Lightning makes the loader's iterator, which draws a number, sometimes before
    that and sometimes after.

    Args:
        seed: of the experiment.
    """

    changes_scores = True

    def __init__(self, seed: Seed) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Detector)
        entropy = [self.seed, pl_module.iterations_done, trainer.global_rank]
        for_python, for_numpy, for_torch = (int(s) for s in np.random.SeedSequence(entropy).generate_state(3))
        random.seed(for_python)
        np.random.seed(for_numpy)
        torch.default_generator.manual_seed(for_torch)  # torch.manual_seed asks every backend there is: 2 ms
        if torch.cuda.is_available():
            torch.cuda.manual_seed(for_torch)
