"""A progress bar that counts what is trained and scored: phase, iterations or batches, images a second, time left."""

from __future__ import annotations

import time
from types import TracebackType
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

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import data_of
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Phase, Range

SECONDS = 30.0  # between two lines where there is no terminal


class Meter:
    """How far one piece of long work is: a bar on a terminal; elsewhere (a log file, a cluster) a line now and then.

    Args:
        title: of the work.
        unit: what is counted.
        done: how many there were already.
        images: in each, for a speed; 0 for none.
        seconds: between two lines where there is no terminal.
        silent: says nothing, for all processes but the first.
        last_line: whether the end is always worth a line.

    Example:
        >>> with Meter("scoring", "batch", silent=True) as meter:
        ...     meter.show(1, 3)
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
        self._console = Console(quiet=True) if silent else Console(stderr=True)
        self._begun_at, self._bar = done, None
        self._started = self._said = time.monotonic()
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
        """`done` of `total` are behind us."""
        now = time.monotonic()
        seconds, fresh = now - self._started, max(1, done - self._begun_at)
        speed = f"{fresh * self.images / max(seconds, 1e-9):,.0f} images/s" if self.images else ""
        if self._bar is not None:
            self._bar.update(self._bar.tasks[0].id, completed=done, total=total, speed=speed)
        elif now - self._said >= self.seconds or (done == total and self.last_line):
            self._said = now
            self._console.print(
                f"{self.title}: {self.unit} {done} of {total}, {speed + ', ' if speed else ''}"
                f"{seconds:.0f} s gone, about {seconds / fresh * (total - done):.0f} s left",
                highlight=False,
            )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ProgressBar(RunCallback, pl.callbacks.ProgressBar):
    """A bar for each phase of the training; without a terminal a line every `seconds`, and at each phase's end.

    Args:
        seconds: between two lines where there is no terminal.
    """

    changes_scores = False

    def __init__(self, seconds: Annotated[float, Range("[0, 1000000]")] = SECONDS) -> None:
        super().__init__()
        self.seconds = seconds
        self._silent = False
        self._meter: Meter | None = None
        self._phase = ""

    def disable(self) -> None:
        """Say nothing: Lightning asks this of all ranks but the first."""
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
            done=pl_module.iterations_done - _before(pl_module, phase),
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
        self._meter.show(pl_module.iterations_done - _before(pl_module, phase), phase.iterations)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._meter is not None:
            self._meter.close()
        self._meter, self._phase = None, ""


def _before(detector: Detector, phase: Phase) -> int:
    """Iterations of the phases before this one."""
    return sum(p.iterations for p in detector.schedule[: detector.schedule.index(phase)])
