"""A progress bar that counts what is trained and judged: phase, iterations or batches, images a second, time left."""

import time
from typing import Annotated

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
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Phase, Range


class ProgressBar(pl.callbacks.ProgressBar):
    """A bar for each phase and for judging on a terminal; elsewhere (a log file, a cluster) a line every `seconds`.

    Args:
        seconds: between two lines where there is no terminal.
    """

    def __init__(self, seconds: Annotated[float, Range("[0, 1000000]")] = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._counted, self._unit = "", ""
        self._from = self._total = 0
        self._started = self._said = 0.0

    def disable(self) -> None:
        """Say nothing: Lightning asks this of all ranks but the first."""
        self._console = Console(quiet=True)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Detector)
        phase = pl_module.phase
        if phase.name != self._counted:
            self._open(phase.name, "iteration", phase.iterations, pl_module.iterations_done - _before(pl_module, phase))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, Detector)
        phase = next(phase for phase in pl_module.schedule if phase.name == self._counted)
        done = pl_module.iterations_done - _before(pl_module, phase)
        self._show(done, phase.minibatches * data_of(trainer).batch_size)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._open("judging", "batch", int(sum(trainer.num_test_batches)), 0)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._show(batch_idx + 1, data_of(trainer).scoring_batch_size)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _open(self, counted: str, unit: str, total: int, done: int) -> None:
        self._close()
        self._counted, self._unit, self._total, self._from = counted, unit, total, done
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
            self._bar.add_task(counted, total=total, completed=done, speed="")

    def _show(self, done: int, images: int) -> None:
        """`done` of the total are behind us, so many images in each."""
        now = time.monotonic()
        seconds, fresh = now - self._started, done - self._from
        speed = fresh * images / max(seconds, 1e-9)
        if self._bar is not None:
            self._bar.update(self._bar.tasks[0].id, completed=done, speed=f"{speed:,.0f} images/s")
        elif now - self._said >= self.seconds or (done == self._total and self._unit == "iteration"):
            self._said = now
            self._console.print(
                f"{self._counted}: {self._unit} {done} of {self._total}, {speed:,.0f} images/s, "
                f"{seconds:.0f} s gone, about {seconds / fresh * (self._total - done):.0f} s left",
                highlight=False,
            )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._counted = None, ""


def _before(detector: Detector, phase: Phase) -> int:
    """Iterations of the phases before this one."""
    return sum(p.iterations for p in detector.schedule[: detector.schedule.index(phase)])
