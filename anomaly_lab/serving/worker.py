"""The process that scores, apart from the one that talks to the network.

A decoder that crashes on a hostile file, or takes all memory or for ever, ends this process and not the server: that
upload is refused, and the next one is scored by a new process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import psutil

from anomaly_lab.serving.jobs import REFUSED, Answer, Answering, Job
from anomaly_lab.types import UserError

FAILED = 500  # status of HTTP for a fault of ours
_SPAWN = multiprocessing.get_context("spawn")  # forking a process with threads is not safe


class Worker:
    """Scores uploads one after another in a process of its own; any thread may ask.

    One at a time, because a batch of several could change the last bit of a score, and a scan has the score that
    `predict` gives it.

    Args:
        opened: makes what answers, in the other process; it is sent there, so it is a function or a partial of one.
        timeout: seconds after which an upload is given up and the process ended.
        memory: bytes that an upload may take beyond what the process has when it is ready; where the system can limit
            that (Linux), a file that inflates to more is refused.

    Attributes:
        facts: of what answers.
        restarts: how often the process was lost.
        fault: why no process could be started when one was last needed; empty if all is well.

    Examples:
        >>> worker = Worker(partial(opened, "runs/a"), timeout=60, memory=2**33)  # doctest: +SKIP
        >>> worker.ask(Job(Path("upload"))).status  # doctest: +SKIP
        200
    """

    def __init__(self, opened: Callable[[], Answering], timeout: float, memory: int) -> None:
        self._opened, self._timeout, self._memory, self._lock = opened, timeout, memory, threading.Lock()
        self._process: SpawnProcess | None = None
        self._line: Connection
        self.facts: dict[str, Any] = {}
        self.restarts, self.fault = 0, ""

    def start(self) -> None:
        """Start the process and wait until it can answer.

        Raises:
            UserError: what answers cannot be opened.
        """
        with self._lock:
            self._start()

    def ask(self, job: Job) -> Answer:
        """Answer an upload.

        Args:
            job: the upload.

        Raises:
            UserError: the process was lost and a new one cannot be started.
        """
        with self._lock:
            if self._process is None or not self._process.is_alive():  # killed from outside: no upload's fault
                self._end()
                self._start()
            try:
                self._line.send(job)
                if self._line.poll(self._timeout):
                    answer: Answer = self._line.recv()
                    return answer
                reason = f"reading and scoring it took longer than {self._timeout:g} s"
            except (EOFError, OSError):
                reason = "the process that read it broke off, as a damaged file or a lack of memory can make it"
            self.restarts += 1
            self._end()
            return Answer(REFUSED, {"detail": f"not scored: {reason}; check the file, or score it with predict"})

    def memory(self) -> int:
        """Return the resident memory of the process, in bytes; 0 while there is none."""
        process = self._process
        try:
            return 0 if process is None else int(psutil.Process(process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def close(self) -> None:
        """End the process; an upload that it is scoring is given up."""
        self._end()

    def _start(self) -> None:
        self._line, other = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_answering, args=(self._opened, other, self._memory), daemon=True)
        self._process.start()
        other.close()
        try:
            first = self._line.recv()
        except EOFError:
            first = UserError("the process that scores ended while it started; its output says why")
        if isinstance(first, Exception):
            self._end()
            self.fault = str(first)
            raise first
        self.facts, self.fault = first, ""

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.join()
        self._line.close()


def _answering(opened: Callable[[], Answering], line: Connection, memory: int) -> None:
    """Answer what comes down the line until its other end is closed, be it that the server was killed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach all processes of a terminal, or of a service
        signal.signal(number, signal.SIG_IGN)  # the server ends this one
    with contextlib.suppress(OSError):  # where memory runs out, the kernel ends this process before the server
        Path("/proc/self/oom_score_adj").write_text("900")
    try:
        answers = opened()
    except Exception as error:
        known = isinstance(error, UserError)
        line.send(error if known else UserError(f"the run cannot be opened ({type(error).__name__}: {error})"))
        return
    _limit(memory)
    line.send(answers.facts)
    while True:
        try:
            job = line.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            answer = answers.answer(job)
        except MemoryError:
            answer = Answer(REFUSED, {"detail": "not scored: it takes more memory than the server gives an upload"})
        except Exception as error:  # a fault of ours; its text could quote a header
            answer = Answer(FAILED, {"detail": f"the server failed ({type(error).__name__}); the file was not scored"})
        line.send(answer)


def _limit(memory: int) -> None:
    """Let this process have so many more bytes; without effect where the system does not count them."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    lines = (line.split() for line in status.read_text().splitlines())
    has = next((int(words[1]) * 1024 for words in lines if words[:1] == ["VmData:"]), 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = has + memory
    if hard == resource.RLIM_INFINITY or wanted < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
