"""Ends a training at the next iteration when a signal asks for it, with a checkpoint to go on from."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from anomaly_lab.callbacks.checkpoints import save
from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Stopped

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
PATIENCE = 30.0  # seconds that the main thread has to take notice of a signal
_STEPS = "epoch_loop.manual_optimization.optim_step_progress"  # Lightning's count of optimizer steps


class Interruption(RunCallback):
    """Turns signals into a clean end: the running iteration is finished, a checkpoint written, `Stopped` raised.

    Outside a training, and at a second signal, `Stopped` is raised at once. SLURM sends several signals by itself, and
    kills a job that takes too long: there, a second signal changes nothing. A main thread inside native code takes no
    notice of signals, for example while it waits for another process that has died: it is ended after PATIENCE.

    A checkpoint is usually written where a Lightning epoch ends. One in the middle of an epoch has Lightning's loops as
    they were where the epoch began, so that Lightning counts the rest of it as a whole epoch when the training goes on;
    which batches are left follows from the number of iterations done.

    Examples:
        >>> with Interruption().listening() as interruption:
        ...     interruption.received is None
        True

    Attributes:
        begun: whether a training has begun, so that everything it needed of a checkpoint has been restored.
    """

    changes_scores = False

    def __init__(self) -> None:
        self.received: int | None = None
        self.begun = False
        self._heard: list[signal.Signals] = []
        self._terminals: list[int] = []
        self._training = self._in_epoch = self._stopping = False
        self._noticed = threading.Event()
        self._loops: dict[str, Any] | None = None

    @contextmanager
    def listening(self) -> Iterator[Interruption]:
        """Receive SIGNALS inside the block; only the main thread can, elsewhere nothing changes.

        A signal that the process was told to ignore, such as SIGINT of a job in the background, stays ignored, and one
        that a program around Python handles stays with it.

        Raises:
            Stopped: a signal came; KeyboardInterrupt for SIGINT.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._heard = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
        self._install()
        try:
            with self._watched():
                yield self
        except Stopped as stopped:
            if stopped.signal == signal.SIGINT:
                raise KeyboardInterrupt from stopped
            raise
        finally:
            for number in self._heard:
                if signal.getsignal(number) is not signal.SIG_IGN:  # ignored for good, where several processes end
                    signal.signal(number, before[number])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._install()  # Lightning has put its own in front, under which a training ends without a word
        self._training = self.begun = True
        if self._loops is None:
            self._loops = _loops(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_asked(trainer)
        self._in_epoch = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if batch_idx + 1 < trainer.num_training_batches:  # after the last one, the epoch's own checkpoint comes next
            self._stop_if_asked(trainer)
        else:
            self._in_epoch = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_asked(trainer)
        self._training = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self._in_epoch:
            self._loops = deepcopy(checkpoint["loops"])
            return
        steps = checkpoint["loops"]["fit_loop"][_STEPS]
        checkpoint["loops"] = deepcopy(self._loops)
        checkpoint["loops"]["fit_loop"][_STEPS] = steps

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._loops = deepcopy(checkpoint["loops"])

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        """Raise Stopped if any process received a signal, in the middle of an epoch after saving a checkpoint."""
        if not trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            return
        self._training = False
        if self._in_epoch and trainer.checkpoint_callbacks:
            detector = trainer.lightning_module
            assert isinstance(detector, Detector)
            detector.average_buffers()  # the first process writes the file: with what the others have counted, too
            save(trainer, detector)
        self._stopping = True
        getattr(trainer.strategy.launcher, "procs", []).clear()  # else Lightning kills this process as others end
        raise Stopped(self.received or signal.SIGTERM)

    def _install(self) -> None:
        for number in self._heard:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._noticed.set()
        if number == signal.SIGHUP:  # the terminal is gone, and whoever writes to it fails
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in self._terminals:
                os.dup2(nowhere, stream)
            os.close(nowhere)
        if self._stopping:
            return
        again = self.received is not None and "SLURM_JOB_ID" not in os.environ
        self.received = number
        if again or not self._training:
            raise Stopped(number)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Inside the block, a thread ends the process if the main thread takes no notice of a signal for PATIENCE."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writer)

    def _watch(self, reader: int) -> None:
        """End the process PATIENCE after a signal, of which the system writes the number, if no handler has run."""
        while number := os.read(reader, 1):
            if number[0] in SIGNALS and not self._noticed.wait(PATIENCE):
                name = signal.Signals(number[0]).name
                print(
                    f"error: {name} had no effect for {PATIENCE:.0f} s, perhaps because another process of the run has "
                    "ended; continue with: make resume RUN=…",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(128 + number[0])
        os.close(reader)


def _loops(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the progress of Lightning's loops as a checkpoint has it."""
    return deepcopy(trainer._checkpoint_connector._get_loops_state_dict())
