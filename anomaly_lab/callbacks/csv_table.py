"""Copy a run's record to one table, `csv/metrics.csv`, for spreadsheets."""

from __future__ import annotations

import shutil
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger

from anomaly_lab.callbacks.mirror import Facts, Mirror


class CSVTable(Mirror):
    """Writes `csv/metrics.csv` in the run folder, anew at every start: a column for each number, a row for each line.

    The last row has the result. The settings are in `csv/hparams.yaml`.

    Args:
        enabled: whether it is written.
        tags: not shown here.

    Examples:
        >>> CSVTable(enabled=False).enabled  # on the command line: callbacks.csv.enabled=true
        False
    """

    changes_scores = False
    title = "The table"

    def begin(self, folder: Path, facts: Facts) -> Logger:
        shutil.rmtree(folder / "csv", ignore_errors=True)
        logger = CSVLogger(folder, name="", version="csv", flush_logs_every_n_steps=10**9)  # at the end of an epoch
        logger.log_hyperparams({**facts.config, "tags": list(facts.tags)})
        return logger
