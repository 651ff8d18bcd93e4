"""Log the mean anomaly score of the validation normals during training."""

from typing import Any

import pytorch_lightning as pl
import torch

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.scoring import to_arrays


class ValidationScore(RunCallback):
    """Tracks `val/anomaly_score`, the mean anomaly score of the validation normals, at every validation.

    No label is used. Nothing is tracked before the detector is ready, because its score is meaningless until then.

    Examples:
        A line of metrics.jsonl at the end of an epoch::

            {"iteration": 500, "images": 13600, "phase": "encoder", "train/encoder": 0.12, "val/anomaly_score": 0.034}
    """

    changes_scores = False

    def __init__(self) -> None:
        self._scores: list[float] = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        normal = batch["label"].cpu().numpy() == 0  # with data.supervision=labels there are labelled anomalies, too
        self._scores += to_arrays(outputs).score[normal].tolist()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        if self._scores and pl_module.ready:
            pl_module.track({"val/anomaly_score": torch.tensor(self._scores).mean()})
        self._scores.clear()
