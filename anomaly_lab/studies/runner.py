"""Trains what a study lacks: each run a process of its own, some at once, a failed one reported and left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock

from anomaly_lab.studies.ledger import Found, Ledger, fingerprints
from anomaly_lab.studies.plan import Key, Planned
from anomaly_lab.types import UserError

State = Literal["found", "trained", "resumed", "evaluated", "failed"]
Say = Callable[[str], None]
COMMAND = (sys.executable, "-m", "anomaly_lab")
GRACE = 20.0  # seconds a run is given to stop


@dataclass(frozen=True)
class Outcome:
    """What became of a planned run: its folder, or why there is none."""

    state: State
    run: Found | None = None
    reason: str = ""


@dataclass
class Runner:
    """Brings the runs of a plan about.

    Attributes:
        ledger: where runs are found and go.
        logs: folder of what each run prints.
        jobs: runs at once; the processor's cores are shared out among them.
        say: is told of every start and end.
        command: what trains and resumes.
    """

    ledger: Ledger
    logs: Path
    jobs: int = 1
    say: Say = print
    command: Sequence[str] = COMMAND
    _processes: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _stopping: bool = False

    def bring_about(self, plan: Sequence[Planned]) -> dict[Key, Outcome]:
        """Every run of the plan, found or trained; one starts when the one it starts from is there."""
        outcomes: dict[Key, Outcome] = {}
        waiting = {run.key: run for run in plan}
        going: dict[Future[Outcome], Planned] = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or going:
                    ready = [r for r in waiting.values() if r.start is None or r.start in outcomes]
                    for run in ready[: self.jobs - len(going)]:
                        going[pool.submit(self._one, waiting.pop(run.key), outcomes)] = run
                    for done in wait(going, return_when=FIRST_COMPLETED).done:
                        run = going.pop(done)
                        outcomes[run.key] = done.result()
                        self._tell(run, outcomes[run.key], len(outcomes), len(plan))
            except BaseException:  # Ctrl-C: the runs have checkpoints, the next start goes on
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop()
                raise
        return outcomes

    def _one(self, run: Planned, outcomes: dict[Key, Outcome]) -> Outcome:
        start = outcomes[run.start].run if run.start else None
        if run.start and start is None:
            return Outcome("failed", reason=f"it starts from {run.start}, which failed")
        try:
            with self._claimed(run, start):
                return self._found_or_trained(run, start)
        except (UserError, OSError) as error:
            return Outcome("failed", reason=" ".join(str(error).split()))

    def _found_or_trained(self, run: Planned, start: Found | None) -> Outcome:
        found = self.ledger.match(run, start)
        if found and not found.finished:
            with FileLock(found.folder / ".lock"):  # a process that outlived its study may still be at it
                pass
            found = self.ledger.match(run, start)
        if found and found.finished and not self.ledger.is_stale(run, found):
            return Outcome("found", found)
        doing, words = "training", self._train(run, start)
        if found:
            doing, verb = ("evaluating again", "evaluate") if found.finished else ("resuming", "resume")
            words = [verb, str(found.folder)]
        self.say(f"{run.key}: {doing}")
        status = self._wait_for(words, self.logs / f"{run.key}.log")
        if status:
            return Outcome("failed", reason=f"{_last_line(self.logs / f'{run.key}.log')} (exit status {status})")
        made = self.ledger.match(run, start)
        if made is None or not made.finished:
            why = "it ended well, but its record is not what was planned: did code or data change meanwhile?"
            return Outcome("failed", reason=f"{why} Start the study again")
        made_by: State = "trained" if not found else "evaluated" if found.finished else "resumed"
        return Outcome(made_by, made)

    def _train(self, run: Planned, start: Found | None) -> list[str]:
        lent = [f"start_from={start.folder}"] if start else []
        return ["train", run.experiment, *run.overrides, *lent, f"runs={self.ledger.runs}"]

    def _claimed(self, run: Planned, start: Found | None) -> FileLock:
        """Two studies that share a run train it once: the second waits and finds it."""
        folder = self.ledger.runs / ".claims"
        folder.mkdir(parents=True, exist_ok=True)
        config, code = fingerprints(run, start)
        return FileLock(folder / f"{config}-{code['training']}")

    def _wait_for(self, words: Sequence[str], log: Path) -> int:
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*self.command, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it once, through `_stop`
                env={"OMP_NUM_THREADS": str(threads), **os.environ},
            )
            self._processes.add(process)
            if self._stopping:
                process.terminate()
        status = process.wait()
        self._processes.discard(process)
        return status

    def _stop(self) -> None:
        """Ask every run to stop, then make it."""
        self._stopping = True
        for process in list(self._processes):
            process.send_signal(signal.SIGINT)
        for process in list(self._processes):
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
                continue
            process.kill()

    def _tell(self, run: Planned, outcome: Outcome, done: int, total: int) -> None:
        where = outcome.reason if outcome.run is None else str(outcome.run.folder)
        self.say(f"[{done}/{total}] {run.key}: {outcome.state}, {where}")


def look_up(ledger: Ledger, plan: Iterable[Planned]) -> dict[Key, Found | None]:
    """What is there already, finished or not; trains nothing.

    A run is not there if the one it starts from is not finished: it will start from another.
    """
    there: dict[Key, Found | None] = {}
    for run in plan:
        start = there[run.start] if run.start else None
        there[run.key] = None if run.start and not (start and start.finished) else ledger.match(run, start)
    return there


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
