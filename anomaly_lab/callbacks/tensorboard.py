"""Copy a run's record to TensorBoard's event files in the run folder: `tensorboard --logdir runs`."""

from __future__ import annotations

import shutil
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger

from anomaly_lab.callbacks.mirror import Exhibit, Facts, Mirror, Summary


class TensorBoard(Mirror):
    """Writes `tensorboard/` in the run folder, anew at every start; needs `pip install anomaly-lab[loggers]`.

    Curves, sample grids and galleries are under Scalars and Images, the settings and the result under HParams, caveats
    and tags under Text.

    Args:
        enabled: whether it is written.
        tags: shown beside source, budget and data set.

    Examples:
        >>> TensorBoard(enabled=False).enabled  # on the command line: callbacks.tensorboard.enabled=true
        False
    """

    changes_scores = False
    title = "TensorBoard"

    def begin(self, folder: Path, facts: Facts) -> Logger:
        import_module("tensorboard")  # Lightning would take a package without its reader
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        logger = TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)
        self._config = facts.config
        logger.experiment.add_text("run", "\n\n".join([facts.name, f"group {facts.group}", " ".join(facts.tags)]))
        return logger

    @property
    def writer(self) -> Any:
        """PyTorch's SummaryWriter."""
        assert isinstance(self.logger, TensorBoardLogger)
        return self.logger.experiment

    def picture(self, key: str, path: Path, step: int) -> None:
        with Image.open(path) as picture:
            self.writer.add_image(key, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def gallery(self, exhibits: list[Exhibit]) -> None:
        """Show the cases of an outcome below each other, their pictures beside each other."""
        for outcome, cases in groupby(exhibits, lambda exhibit: exhibit.outcome):
            rows = [np.concatenate(list(case.pictures.values()), 1) for case in cases]
            self.writer.add_image(f"gallery/{outcome.replace(':', '/')}", np.concatenate(rows), dataformats="HWC")

    def end(self, run: Path, summary: Summary, caveats: tuple[str, ...]) -> None:
        assert isinstance(self.logger, TensorBoardLogger)
        numbers = {key: value for key, value in summary.items() if isinstance(value, float)}
        texts = [f"- {key}: {value}" for key, value in summary.items() if isinstance(value, str)]
        self.writer.add_text("result", "\n".join(texts))
        self.writer.add_text("caveats", "\n".join(f"- {caveat}" for caveat in caveats) or "none")
        self.logger.log_hyperparams(self._config, numbers)
        self.logger.save()
        self.logger.finalize("success")
