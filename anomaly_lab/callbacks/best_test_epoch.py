"""Choose the epoch by the test labels, as the official GANomaly code does. For reproduction only."""

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import PatchDataModule, data_of
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.scoring import score_batches
from anomaly_lab.metrics.ranking import auroc
from anomaly_lab.types import UserError


class BestTestEpoch(RunCallback):
    """Restores, at the end of training, the weights of the epoch with the highest AUROC on the test labels.

    Once the detector is ready to score, each epoch ends with scoring all test images, patch by patch, in the batches of
    the final evaluation, and `cheat/test_auroc` is written to metrics.jsonl. The best weights so far are part of the
    checkpoint, so a resumed training makes the same choice. The last checkpoint holds the chosen weights under the
    number of the last iteration: these are the weights that are evaluated and used for prediction.

    Attributes:
        caveat: warning shown wherever the run's numbers are reported.

    Examples:
        In an experiment's YAML file::

            callbacks:
              best_test_epoch: {_target_: anomaly_lab.callbacks.best_test_epoch.BestTestEpoch}
    """

    changes_scores = True
    caveat = (
        "callbacks.best_test_epoch: the epoch was chosen by its AUROC on the test labels, so the reported AUROC is "
        "too optimistic"
    )

    def __init__(self) -> None:
        self._best: dict[str, Any] = {}

    def checkpoint_choice(self) -> dict[str, Any] | None:
        """Return rule, iteration and AUROC of the chosen epoch, and the last epoch's AUROC; None without any epoch."""
        choice = {key: value for key, value in self._best.items() if key != "weights"}
        return {"rule": "best epoch by test labels", **choice} if choice else None

    def refuse(self, data: PatchDataModule, detector: Detector) -> None:
        if not len(data.rows["val"]) or len(set(data.store.labels[data.rows["test"]].tolist())) < 2:
            raise UserError(
                "callbacks.best_test_epoch needs validation normals and test images of both classes: raise "
                "data.split.val_fraction, check the labels, or remove the callback"
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the test split and keep the best weights; runs before the epoch's metrics are written."""
        assert isinstance(pl_module, Detector)
        if not pl_module.ready:
            return
        test_auroc = trainer.strategy.broadcast(_test_auroc(trainer, pl_module))  # all processes choose the same
        if math.isnan(test_auroc):  # the weights have diverged, which `Record` says
            return
        pl_module.track({"cheat/test_auroc": torch.tensor(test_auroc)})
        if test_auroc > self._best.get("auroc", -1.0):
            weights = {key: value.detach().cpu().clone() for key, value in pl_module.state_dict().items()}
            self._best = {"iteration": pl_module.iterations_done, "auroc": test_auroc, "weights": weights}
        self._best["last_auroc"] = test_auroc

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the best weights when training is finished; runs before the epoch's checkpoint is written."""
        assert isinstance(pl_module, Detector)
        if pl_module.finished and "weights" in self._best:  # without any, the weights have diverged, see above
            pl_module.load_state_dict({**self._best.pop("weights"), "iteration": pl_module.iteration})

    def state_dict(self) -> dict[str, Any]:
        return self._best

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = dict(state_dict)


def _test_auroc(trainer: pl.Trainer, detector: Detector) -> float:
    """Return the AUROC of the test split, all of which every process scores; NaN if a score is not finite."""
    data = data_of(trainer)
    parts = [
        (batch["row"].numpy(), scored.score)
        for batch, scored in score_batches(detector.score, data.test_dataloader(whole=True), detector.device)
    ]
    row, score = (np.concatenate(part) for part in zip(*parts, strict=True))
    test = np.isin(row, data.rows["test"])  # the loader also yields the validation normals
    return auroc(data.store.labels[row[test]], score[test]) if np.isfinite(score).all() else math.nan
