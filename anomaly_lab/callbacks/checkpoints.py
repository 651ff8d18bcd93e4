"""Save checkpoints during training."""

from pathlib import Path
from typing import Annotated

import pytorch_lightning as pl

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.experiment.checkpoint_files import by_age
from anomaly_lab.types import Range


class Checkpoints(RunCallback, pl.callbacks.Checkpoint):
    """Saves a checkpoint at the end of every Lightning epoch, after all other callbacks, and keeps the newest few.

    Args:
        keep: number of checkpoints to keep, at least 2, so that one is left if the newest cannot be read.

    Examples:
        >>> Checkpoints(keep=5).keep  # on the command line: callbacks.checkpoints.keep=5
        5
    """

    changes_scores = False

    def __init__(self, keep: Annotated[int, Range("[2, 100000]")] = 2) -> None:
        if keep < 2:
            raise ValueError(f"callbacks.checkpoints.keep={keep}: must be at least 2, so that one checkpoint is spare")
        self.keep = keep

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        save(trainer, pl_module)
        self._remove_old(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._remove_old(trainer)  # if a process was killed between saving the last checkpoint and this

    def _remove_old(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            for old in by_age(folder_of(trainer))[self.keep :]:
                old.unlink()


def save(trainer: pl.Trainer, detector: pl.LightningModule) -> None:
    """Save a checkpoint into the run folder, named by the iterations done; every rank calls it."""
    trainer.save_checkpoint(folder_of(trainer) / f"{detector.iterations_done:08d}.ckpt")


def folder_of(trainer: pl.Trainer) -> Path:
    """Return the folder of a run's checkpoints."""
    return Path(trainer.default_root_dir) / "checkpoints"
