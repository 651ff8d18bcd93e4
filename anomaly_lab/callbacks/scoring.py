"""Collects what a detector says of the held-out normals while it trains, and of every judged case at the end."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Batch, Prediction


class Scoring(pl.Callback):
    """Keeps raw scores by row of the store, and the maps of cases that have masks.

    While fitting, the mean score of the held-out normals is tracked as `val/anomaly_score`: it uses no label and
    means nothing before the detector is ready.
    """

    def __init__(self) -> None:
        self._scores: list[float] = []
        self._parts: list[dict[str, np.ndarray]] = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._scores += outputs.anomaly_score.tolist()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        if self._scores and pl_module.ready:
            pl_module.track({"val/anomaly_score": torch.tensor(self._scores).mean()})
        self._scores.clear()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._parts.clear()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._parts.append(_part(outputs, batch))

    def gathered(self) -> dict[str, np.ndarray]:
        """Everything the last test said, from all ranks, by row; to be called by all of them.

        Returns:
            row [n], score [n] (float64) and, where there are masks, anomaly_map and mask [n, 1, *S].

        Raises:
            RuntimeError: a row was scored twice.
        """
        parts = self._parts
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everywhere: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everywhere, self._parts)
            parts = [part for rank in everywhere for part in rank]
        whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        order = np.argsort(whole["row"], kind="stable")
        if len(np.unique(whole["row"])) != len(order):
            raise RuntimeError("a case was scored twice: the loaders of the ranks overlap")
        return {key: value[order] for key, value in whole.items()}


def _part(prediction: Prediction, batch: Batch) -> dict[str, np.ndarray]:
    part = {"row": batch["row"].cpu().numpy(), "score": prediction.anomaly_score.double().cpu().numpy()}
    if "mask" in batch and prediction.anomaly_map is not None:
        part |= {"anomaly_map": prediction.anomaly_map.cpu().numpy(), "mask": batch["mask"].cpu().numpy()}
    return part
