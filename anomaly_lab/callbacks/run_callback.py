"""RunCallback: base class of callbacks, with declarations and hooks for a whole run that Lightning does not have."""

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
    """A Lightning callback with hooks for a whole run: training, final scoring and report.

    The section `callbacks` of an experiment may name a `pl.Callback` of this package, of one that the user trusts, or
    one of Lightning's that takes neither a path nor a function. A subclass of this one can also add columns to
    the final scoring, use its result, and act when the report has been written.

    The section names its class by `_target_`, so every argument of its constructor has a default. Lightning's hooks are
    called on every rank and every epoch: what writes returns unless `trainer.is_global_zero`. A callback writes into
    the run folder, `trainer.default_root_dir`, and nowhere else; its pictures `samples/<callback>/<iteration>.png` are
    shown in the report and on dashboards.

    Attributes:
        changes_scores: whether the callback can change the weights or scores of a run. One that only displays or
            records sets it to False; a finished run is then reused whether or not it had the callback, and the
            contract tests check the claim. A `pl.Callback` without this attribute is taken to change them.
        caveat: warning shown wherever the run's numbers are reported; None for none.

    Examples:
        >>> class Notification(RunCallback):
        ...     changes_scores = False
        ...
        ...     def on_run_end(self, run: Path) -> None:
        ...         print(f"{run.name} is done")
        >>> Notification().on_run_end(Path("runs/fanogan_headct"))
        fanogan_headct is done
    """

    changes_scores: ClassVar[bool] = True
    caveat: ClassVar[str | None] = None

    def refuse(self, data: PatchDataModule, detector: Detector) -> None:
        """Refuse an experiment that the callback cannot serve; called before the run folder is made.

        Args:
            data: the data module, already set up.
            detector: as it begins.

        Raises:
            UserError: what is missing, and what to do.
        """

    def checkpoint_choice(self) -> dict[str, Any] | None:
        """Return how the final weights were chosen, for provenance.json; None if they are simply the last."""
        return None

    def scored_columns(self, data: PatchDataModule, batch: Batch, scored: Scored) -> Columns:
        """Return arrays [B, …] to collect with the scores of a batch; called on every rank."""
        return {}

    def on_scored(self, run: Path, data: PatchDataModule, detector: Detector, scored: Columns) -> None:
        """Act after all validation normals and test cases have been scored; called on rank 0.

        Args:
            run: the run folder.
            data: the data module, already set up.
            detector: the trained detector, on the device that scored.
            scored: arrays in the order of the store's rows: row, score, the callbacks' columns; anomaly_map, and mask
                where the data set has masks.
        """

    def on_run_end(self, run: Path) -> None:
        """Act after the report has been written; called on rank 0."""

    def on_run_stopped(self, run: Path) -> None:
        """Release what is held if an error or Ctrl-C ends the run before that; called on every rank.

        A process that another signal ends has no time for it: a cluster waits for its job to be queued again.
        """


def changes_scores(callback: type) -> bool:
    """Return whether a run's scores may depend on a callback of this class.

    Examples:
        >>> class Silent(RunCallback):
        ...     changes_scores = False
        >>> changes_scores(Silent), changes_scores(pl.Callback)
        (False, True)
    """
    return bool(getattr(callback, "changes_scores", True))
