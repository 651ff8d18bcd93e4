"""Chooses the epoch by the test labels, as the official GANomaly code does: for reproduction only."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import data_of
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.scoring import score_batches
from anomaly_lab.metrics.ranking import auroc
from anomaly_lab.types import UserError


class BestTestEpoch(RunCallback):
    """Gives the detector, when its training ends, the weights it had when its AUROC on the test labels was highest.

    From the first epoch on whose score means something, each ends with all test images scored, patch by patch, in the
    batches of the final judgement; `cheat/test_auroc` goes to metrics.jsonl. The best weights so far are part of the
    checkpoint, so a resumed training chooses alike. The last checkpoint holds the chosen weights under the number of
    the last iteration: they are what is judged, evaluated again and predicted with.

    Attributes:
        caveat: what must be said wherever the numbers stand.
    """

    changes_scores = True
    caveat = "callbacks.best_test_epoch: the epoch was chosen by its AUROC on the test labels, so that is too good"

    def __init__(self) -> None:
        self._best: dict[str, Any] = {}

    def checkpoint_choice(self) -> dict[str, Any] | None:
        """Rule, iteration and AUROC of the chosen epoch, and the AUROC of the last one; None if none was trained."""
        found = {key: value for key, value in self._best.items() if key != "weights"}
        return {"rule": "best epoch by test labels", **found} if found else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            raise UserError("callbacks.best_test_epoch wants the test split on one process: set trainer.devices=1")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = data_of(trainer)
        if not len(data.rows["val"]) or len(set(data.store.labels[data.rows["test"]].tolist())) < 2:
            raise UserError("callbacks.best_test_epoch wants held-out normals, and test images of both classes")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The record of the epoch is not yet written."""
        assert isinstance(pl_module, Detector)
        if not pl_module.ready:
            return
        reached = _test_auroc(trainer, pl_module)
        pl_module.track({"cheat/test_auroc": torch.tensor(reached)})
        if reached > self._best.get("auroc", -1.0):
            weights = {key: value.detach().cpu().clone() for key, value in pl_module.state_dict().items()}
            self._best = {"iteration": pl_module.iterations_done, "auroc": reached, "weights": weights}
        self._best["last_auroc"] = reached

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The checkpoint of the epoch is not yet written."""
        assert isinstance(pl_module, Detector)
        if pl_module.finished:
            pl_module.load_state_dict({**self._best.pop("weights"), "iteration": pl_module.iteration})

    def state_dict(self) -> dict[str, Any]:
        return self._best

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = dict(state_dict)


def _test_auroc(trainer: pl.Trainer, detector: Detector) -> float:
    data = data_of(trainer)
    parts = [
        (batch["row"].numpy(), scored.score)
        for batch, scored in score_batches(detector.score, data.test_dataloader(), detector.device)
    ]
    row, score = (np.concatenate(part) for part in zip(*parts, strict=True))
    test = np.isin(row, data.rows["test"])  # the loader brings the held-out normals as well
    return auroc(data.store.labels[row[test]], score[test])
