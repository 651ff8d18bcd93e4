"""Progress of training and scoring: phase, iterations or batches, images per second, time left."""

from __future__ import annotations

import errno
import os
import sys
import time
from types import TracebackType
from typing import Annotated, Any

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

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import data_of
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Phase, Range

SECONDS = 30.0  # between two progress lines where there is no terminal


class StandardError(Console):
    """The console of a run; that its reader has ended, such as `head` or a terminal, ends nothing but what it shows."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(stderr=True, **settings)

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            if error.errno != errno.EIO:  # of a terminal that was closed; rich knows of pipes alone
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


class Meter:
    """Progress display for one long task: a bar on a terminal, otherwise (log file, cluster) a line from time to time.

    Both are written to standard error.

    Args:
        title: name of the task.
        unit: what is counted, in the singular.
        done: units that were already done at the start.
        images: images per unit, to show images per second; 0 shows no speed.
        seconds: time between two lines where there is no terminal.
        silent: show nothing, for all ranks but the first.
        last_line: always print a line at the end, however short the task.

    Examples:
        >>> with Meter("scoring", "batch", silent=True) as meter:
        ...     for done in (1, 2, 3):
        ...         meter.show(done, total=3)
    """

    def __init__(
        self,
        title: str,
        unit: str,
        *,
        done: int = 0,
        images: int = 0,
        seconds: float = SECONDS,
        silent: bool = False,
        last_line: bool = False,
    ) -> None:
        self.title, self.unit, self.images, self.seconds, self.last_line = title, unit, images, seconds, last_line
        self._console = Console(quiet=True) if silent else StandardError()
        self._initial, self._bar = done, None
        self._started = self._last_printed = time.monotonic()
        if self._console.is_terminal and not silent:
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
            self._bar.add_task(title, completed=done, speed="")

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, done: int, total: int) -> None:
        """Show that `done` of `total` units are done."""
        now = time.monotonic()
        seconds, new = now - self._started, max(1, done - self._initial)
        speed = f"{new * self.images / max(seconds, 1e-9):,.0f} images/s" if self.images else ""
        if self._bar is not None:
            self._bar.update(self._bar.tasks[0].id, completed=done, total=total, speed=speed)
        elif now - self._last_printed >= self.seconds or (done == total and self.last_line):
            self._last_printed = now
            self._console.print(
                f"{self.title}: {self.unit} {done} of {total}, {speed + ', ' if speed else ''}"
                f"{seconds:.0f} s elapsed, about {seconds / new * (total - done):.0f} s left",
                highlight=False,
            )

    def close(self) -> None:
        """Stop the bar and restore the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ProgressBar(RunCallback, pl.callbacks.ProgressBar):
    """Progress bar for each phase of training; without a terminal, a line every `seconds` and at the end of a phase.

    Args:
        seconds: time between two lines where there is no terminal.

    Examples:
        >>> ProgressBar(seconds=5).seconds  # on the command line: callbacks.progress.seconds=5
        5
    """

    changes_scores = False

    def __init__(self, seconds: Annotated[float, Range("[0, 1000000]")] = SECONDS) -> None:
        super().__init__()
        self.seconds = seconds
        self._silent = False
        self._meter: Meter | None = None
        self._phase = ""

    def disable(self) -> None:
        """Show nothing; Lightning calls this on all ranks but the first."""
        self._silent = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Detector)
        phase = pl_module.phase
        if phase.name == self._phase:
            return
        self._close()
        self._phase = phase.name
        self._meter = Meter(
            phase.name,
            "iteration",
            done=pl_module.iterations_done - _iterations_before(pl_module, phase),
            images=phase.minibatches * data_of(trainer).batch_size,
            seconds=self.seconds,
            silent=self._silent,
            last_line=True,
        )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, Detector)
        assert self._meter is not None
        phase = next(phase for phase in pl_module.schedule if phase.name == self._phase)
        self._meter.show(pl_module.iterations_done - _iterations_before(pl_module, phase), phase.iterations)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._meter is not None:
            self._meter.close()
        self._meter, self._phase = None, ""


def _iterations_before(detector: Detector, phase: Phase) -> int:
    """Return the number of iterations of all earlier phases."""
    return sum(p.iterations for p in detector.schedule[: detector.schedule.index(phase)])
