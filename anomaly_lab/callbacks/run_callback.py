"""RunCallback: what a callback declares of itself, and the moments of a run that Lightning does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
from numpy.typing import NDArray

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.scoring import Scored
from anomaly_lab.types import Batch

Columns = dict[str, NDArray[Any]]


class RunCallback(pl.Callback):
    """A Lightning callback that takes part in a whole run: training, final scoring, report.

    Any `pl.Callback` may stand in an experiment's section `callbacks`. One that derives from this class can also add
    columns to the final scoring, look at its result, and act when the report is written.

    Attributes:
        changes_scores: whether the weights or scores of a run may differ with it. A callback that only shows or
            records says False; a finished run is then reused whether or not it had the callback, and the contract
            tests hold the class to its word. A `pl.Callback` that says nothing is taken to change them.
        caveat: what must be said wherever the run's numbers stand; None for nothing.

    Example:
        >>> class Greeting(RunCallback):
        ...     changes_scores = False
        ...
        ...     def on_run_end(self, run: Path) -> None:
        ...         print(f"{run.name} is done")
    """

    changes_scores: ClassVar[bool] = True
    caveat: ClassVar[str | None] = None

    def checkpoint_choice(self) -> dict[str, Any] | None:
        """How the final weights were chosen, for the record; None if they are simply the last."""
        return None

    def scored_columns(self, data: PatchDataModule, batch: Batch, scored: Scored) -> Columns:
        """Arrays [B, …] of a scored batch that are gathered beside its scores; called on every rank."""
        return {}

    def on_scored(self, run: Path, data: PatchDataModule, detector: Detector, scored: Columns) -> None:
        """Every validation normal and test case was scored; called on rank 0.

        Args:
            run: its folder.
            data: set up.
            detector: trained, on the device that scored.
            scored: by row of the store: row, score, the callbacks' columns; anomaly_map, mask where there are masks.
        """

    def on_run_end(self, run: Path) -> None:
        """The report is written; called on rank 0."""


def changes_scores(callback: type) -> bool:
    """Whether a run's scores may depend on a callback of this class."""
    return bool(getattr(callback, "changes_scores", True))
