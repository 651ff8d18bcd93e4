"""Randomness that resumes by itself: every epoch's is a pure function of seed, iteration and rank."""

import random

import numpy as np
import pytorch_lightning as pl
import torch

from anomaly_lab.detector import Detector


class Randomness(pl.Callback):
    """Seeds Python, NumPy and torch (all devices) at each epoch's start, so that no generator's state need be saved.

    Args:
        seed: of the experiment.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        entropy = [self.seed, pl_module.iterations_done, trainer.global_rank]
        for_python, for_numpy, for_torch = (int(s) for s in np.random.SeedSequence(entropy).generate_state(3))
        random.seed(for_python)
        np.random.seed(for_numpy)
        torch.manual_seed(for_torch)
