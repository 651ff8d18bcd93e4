"""A progress bar that counts what is trained: phase, iterations, images a second, time left."""

import time

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from anomaly_lab.data.datamodule import data_of
from anomaly_lab.detector import Detector


class ProgressBar(pl.callbacks.ProgressBar):
    """A bar for each phase on a terminal; elsewhere (a log file, a cluster) a line every `seconds`.

    Args:
        seconds: between two lines where there is no terminal.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._phase = ""
        self._from = 0
        self._started = self._said = 0.0

    def disable(self) -> None:
        """Say nothing: Lightning asks this of all ranks but the first."""
        self._console = Console(quiet=True)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Detector)
        if pl_module.phase.name != self._phase:
            self._open(pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, Detector)
        phase = next(phase for phase in pl_module.schedule if phase.name == self._phase)
        begun = sum(p.iterations for p in pl_module.schedule[: pl_module.schedule.index(phase)])
        done, seconds = pl_module.iterations_done - begun, time.monotonic() - self._started
        fresh = done - self._from
        batch_size = data_of(trainer).batch_size
        speed = fresh * phase.minibatches * batch_size / max(seconds, 1e-9)
        if self._bar is not None:
            self._bar.update(self._bar.tasks[0].id, completed=done, speed=f"{speed:,.0f} images/s")
        elif time.monotonic() - self._said >= self.seconds or done == phase.iterations:
            self._said = time.monotonic()
            left = seconds / fresh * (phase.iterations - done)
            self._console.print(
                f"{self._phase}: iteration {done} of {phase.iterations}, {speed:,.0f} images/s, "
                f"{seconds:.0f} s gone, about {left:.0f} s left",
                highlight=False,
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _open(self, detector: Detector) -> None:
        self._close()
        phase = detector.phase
        before = sum(p.iterations for p in detector.schedule[: detector.schedule.index(phase)])
        self._phase, self._from = phase.name, detector.iterations_done - before
        self._started = self._said = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._bar.add_task(phase.name, total=phase.iterations, completed=self._from, speed="")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._phase = None, ""
