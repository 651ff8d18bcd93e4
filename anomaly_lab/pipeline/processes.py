"""Several processes of one run: they meet before anything is read, and the error of one is everybody's."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch.distributed
from lightning_fabric.utilities.distributed import _init_dist_connection
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from anomaly_lab.callbacks.interruption import SIGNALS
from anomaly_lab.pipeline import launchers
from anomaly_lab.pipeline.distributed import children, chosen_strategy
from anomaly_lab.types import FailedElsewhereError, Stopped, UserError

T = TypeVar("T")

LOOK = 0.05  # seconds between two looks at whether the others are here
HEARD = 5.0  # seconds that the first process, which keeps the note of an error, waits until all others have read it
GRACE = 10.0  # seconds that a process has to end by itself where another one has ended
ENDED = "another process of this run has ended"

_meetings = list["Processes"]()


class Processes:
    """The processes of a run, of which this is one; a single one until `start`, unless a launcher started several.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        self._local_rank = 0
        self._store: Any = None  # notes that all processes can read, kept by the first one
        self._waits = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def start(self, trainer: DictConfig, said: Sequence[str] = ()) -> DictConfig:
        """Start the other processes that the section `trainer` asks for, and meet them.

        Args:
            trainer: the section.
            said: `key=value` words of the user.

        Returns:
            The section with the numbers of processes as they are.

        Raises:
            UserError: the numbers are not those of the program that started the processes.
        """
        if launch := launchers.launched():
            settled = DictConfig(OmegaConf.merge(trainer, launchers.adopted(trainer, launch, said)))
            if launch.size > 1 and not isinstance(chosen_strategy(settled), DDPStrategy):
                raise UserError(f"trainer.strategy={trainer.strategy} is that of one process; leave it out")
            return settled
        probe = chosen_strategy(trainer)
        if isinstance(probe, DDPStrategy):
            environment = probe.cluster_environment
            assert environment is not None
            if environment.creates_processes_externally:  # this process was started below, or by hand, one by one
                self._refuse_other_number(probe)
            else:
                assert isinstance(probe.launcher, _SubprocessScriptLauncher)
                probe.launcher._call_children_scripts()
                children[:] = probe.launcher.procs
                threading.Thread(target=_watch, daemon=True).start()
            probe.set_world_ranks()
            self._meet(environment, probe.global_rank, probe.num_nodes * probe.num_processes, probe.local_rank)
        else:
            refuse_others("a training in one process")
        return trainer

    def wait(self) -> None:
        """Wait until all processes are here.

        Raises:
            FailedElsewhereError: one of them has failed.
            UserError: one of them has ended without a word.
        """
        if self._store is None:
            return
        self._waits += 1
        here = self._note("here")
        self._store.add(here, 1)
        while self._store.add(here, 0) < self.size:  # a collective would time out, and notice no signal
            self._raise_told()
            time.sleep(LOOK)

    def from_first(self, value: T) -> T:
        """Return the first process's value in all of them."""
        if self._store is None:
            return value
        name = self._note("value")
        if self.is_first:
            self._store.set(name, pickle.dumps(value))
        self.wait()
        theirs: T = pickle.loads(self._store.get(name))
        return theirs

    def in_turn(self, work: Callable[[], None]) -> None:
        """Let the first process do something, then the first one of every other machine, then the rest.

        What the first one leaves on a disk is there for the others, be it a disk of all machines or of one.
        """
        mine = 0 if self.is_first else 1 if self._local_rank == 0 else 2
        for turn in range(3 if self.size > 1 else 1):
            if turn == mine:
                work()
            self.wait()

    def refuse_differences(self, what: str, value: object) -> None:
        """Check that all processes have the same as the first one.

        Raises:
            UserError: this process has something else.
        """
        if self.from_first(value) != value:
            raise UserError(
                f"{what} of process {self.rank} on {socket.gethostname()} differs from that of the first process; give "
                "every machine the same files"
            )
        self.wait()

    def _meet_launched(self) -> None:
        """Meet the others where a launcher started all of them."""
        if (launch := launchers.launched()) and launch.size > 1:
            self._meet(launchers.environment(), launch.rank, launch.size, launch.local_rank)

    def _meet(self, environment: Any, rank: int, size: int, local_rank: int) -> None:
        self.rank, self.size, self._local_rank = rank, size, local_rank
        if not torch.distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            _init_dist_connection(environment, backend, rank, size)
        launchers.have_met()
        self._store = torch.distributed.distributed_c10d._get_default_store()
        _meetings.append(self)

    def _note(self, what: str) -> str:
        """Return a name for a note that no other meeting or wait of this process uses; all processes count alike."""
        return f"{what} {len(_meetings)} {self._waits}"

    def _refuse_other_number(self, strategy: DDPStrategy) -> None:
        size = strategy.num_nodes * strategy.num_processes
        if (there := os.environ.get("WORLD_SIZE", str(size))) != str(size):
            raise UserError(f"{there} processes were started, but trainer.devices and trainer.num_nodes make {size}")

    def _tell(self, error: BaseException) -> int | None:
        """Leave a note of an error for the other processes; return the status of one that was told before it."""
        if self._store is None or not torch.distributed.is_initialized():  # alone, or told already
            return None
        status = 128 + error.signal if isinstance(error, Stopped) else 2 if isinstance(error, UserError) else 1
        mine = json.dumps([self.rank, status])
        try:
            told = self._store.compare_set("error", "", mine).decode()
        except Exception:  # the first process kept the notes, and has ended
            return None if self.rank == 1 else status
        self._end()
        return None if told == mine else int(json.loads(told)[1])

    def _raise_told(self) -> None:
        """Raise the error of another process, if it has left a note of one."""
        assert self._store is not None
        if self._store.check(["error"]):
            _, status = json.loads(self._store.get("error"))
            self._end()
            raise _told(status)

    def _end(self) -> None:
        """Let others that wait for this process go on, to read the note; the first one, which keeps it, ends last."""
        assert self._store is not None
        mine, end = list(children), time.monotonic() + HEARD
        children.clear()
        _ignore_signals()
        with suppress(Exception):
            self._store.add("heard", 1)
            if torch.distributed.get_backend() == "gloo":  # NCCL would wait for its collectives
                torch.distributed.destroy_process_group()  # which ends those in which the others are
            while self.is_first and self._store.add("heard", 0) < self.size and time.monotonic() < end:
                time.sleep(LOOK)
        for child in mine if time.monotonic() > end else ():  # it is at something long
            child.kill()
        self._store = None


@contextmanager
def together() -> Iterator[Processes]:
    """Make an error inside the block everybody's: whichever process fails, all end, and one of them says why.

    If a launcher started several processes, they meet before the block begins.

    Raises:
        FailedElsewhereError: another process has failed, and says why.

    Examples:
        >>> with together() as processes:
        ...     processes.is_first, processes.size
        (True, 1)
    """
    processes = Processes()
    try:
        processes._meet_launched()
        yield processes
    except FailedElsewhereError:
        raise
    except (Exception, Stopped) as error:
        if (status := processes._tell(error)) is not None:
            raise _told(status) from error
        if is_of_another(error):
            raise UserError(f"{ENDED}; give the same command again") from error
        raise


def refuse_others(command: str) -> None:
    """Refuse one process's work in a script that a training in several processes has made several of.

    Raises:
        UserError: there are others; in them, FailedElsewhereError.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    size = torch.distributed.get_world_size()
    if size > 1 and torch.distributed.get_rank():
        raise FailedElsewhereError(2)
    if size > 1:
        raise UserError(
            f"{command} is the work of one process, but a training with trainer.devices has made {size} of this "
            "script; do it before that training, or in a script of its own"
        )


def is_of_another(error: BaseException) -> bool:
    """Return whether an error follows from the end of another process of the run, by what Gloo and NCCL raise."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _ignore_signals() -> None:
    """Ignore signals from now on: launchers send them where one process has failed, which is no reason to requeue."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _told(status: int) -> BaseException:
    """Return how a process ends because another one has said why, with this exit status."""
    return Stopped(status - 128) if status > 128 else FailedElsewhereError(status)


def _watch() -> None:
    """End this process where one that it started has ended, and it takes no notice because it waits for nobody."""
    while children:
        time.sleep(0.5)
        if any(child.poll() not in (None, 0) for child in list(children)):
            time.sleep(GRACE)
            if children:
                for child in children:
                    child.kill()
                print(f"error: {ENDED}; continue with: make resume RUN=…", file=sys.stderr, flush=True)
                os._exit(2)
