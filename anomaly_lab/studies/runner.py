"""Train the missing runs of a study, each in its own process, several at once; failed runs do not stop the others."""

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

from anomaly_lab.experiment.run_folder import no_link
from anomaly_lab.studies.ledger import Found, Ledger, fingerprints
from anomaly_lab.studies.plan import Key, Planned
from anomaly_lab.types import UserError

State = Literal["found", "trained", "resumed", "evaluated", "failed"]
Say = Callable[[str], None]
COMMAND = (sys.executable, "-m", "anomaly_lab")
GRACE = 20.0  # seconds a run has to stop before it is killed


@dataclass(frozen=True)
class Outcome:
    """Outcome of a planned run.

    Attributes:
        state: what was done: "found" (already finished), "trained", "resumed", "evaluated" again, or "failed".
        run: the finished run; None if it failed.
        reason: why there is no finished run.
    """

    state: State
    run: Found | None = None
    reason: str = ""


@dataclass
class Runner:
    """Trains the missing runs of a plan.

    Attributes:
        ledger: finds existing runs; new ones are written to its folder.
        logs: folder for the output of each run.
        jobs: number of runs at the same time; they share the CPU cores.
        say: called with a line of text at the start and the end of each run.
        command: command line of anomaly_lab.

    Examples:
        Train what is missing of a study, two runs at a time::

            runner = Runner(Ledger(Path("runs")), logs=Path("runs/studies/medical_images/logs"), jobs=2)
            outcomes = runner.run_all(plan(load("medical_images")))
    """

    ledger: Ledger
    logs: Path
    jobs: int = 1
    say: Say = print
    command: Sequence[str] = COMMAND
    _processes: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _stopping: bool = False

    def run_all(self, plan: Sequence[Planned]) -> dict[Key, Outcome]:
        """Find or train every run of the plan; a warm start waits for the run it starts from.

        Ctrl-C stops all running processes; they resume at the next call.
        """
        outcomes: dict[Key, Outcome] = {}
        waiting = {run.key: run for run in plan}
        running: dict[Future[Outcome], Planned] = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or running:
                    ready = [r for r in waiting.values() if r.start is None or r.start in outcomes]
                    for run in ready[: self.jobs - len(running)]:
                        running[pool.submit(self._run_one, waiting.pop(run.key), outcomes)] = run
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        run = running.pop(done)
                        outcomes[run.key] = done.result()
                        self._report(run, outcomes[run.key], len(outcomes), len(plan))
            except BaseException:  # also Ctrl-C; the runs have checkpoints, so the next call resumes them
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop()
                raise
        return outcomes

    def _run_one(self, run: Planned, outcomes: dict[Key, Outcome]) -> Outcome:
        start = outcomes[run.start].run if run.start else None
        if run.start and start is None:
            return Outcome("failed", reason=f"it starts from {run.start}, which failed")
        try:
            with self._lock(run, start):
                return self._find_or_train(run, start)
        except (UserError, OSError) as error:
            return Outcome("failed", reason=" ".join(str(error).split()))

    def _find_or_train(self, run: Planned, start: Found | None) -> Outcome:
        found = self.ledger.match(run, start)
        if found and not found.finished:
            with FileLock(found.folder / ".lock"):  # a process that outlived its study may still be training it
                pass
            found = self.ledger.match(run, start)
        if found and found.finished and not self.ledger.is_stale(run, found):
            return Outcome("found", found)
        activity, words = "training", self._train_words(run, start)
        if found:
            activity, verb = ("evaluating again", "evaluate") if found.finished else ("resuming", "resume")
            words = [verb, str(found.folder)]
        self.say(f"{run.key}: {activity}")
        status = self._execute(words, self.logs / f"{run.key}.log")
        if status:
            return Outcome("failed", reason=f"{_last_line(self.logs / f'{run.key}.log')} (exit status {status})")
        result = self.ledger.match(run, start)
        if result is None or not result.finished:
            reason = (
                "its process succeeded, but no finished run with the planned configuration, code and data was found; "
                "code or data may have changed meanwhile: start the study again"
            )
            return Outcome("failed", reason=reason)
        state: State = "trained" if not found else "evaluated" if found.finished else "resumed"
        return Outcome(state, result)

    def _train_words(self, run: Planned, start: Found | None) -> list[str]:
        warm_start = [f"start_from={start.folder}"] if start else []
        return ["train", run.experiment, *run.overrides, *warm_start, f"runs={self.ledger.runs}"]

    def _lock(self, run: Planned, start: Found | None) -> FileLock:
        """Return a lock, so that of two studies that share a run one trains it and the other waits and finds it."""
        folder = self.ledger.runs / ".claims"
        folder.mkdir(parents=True, exist_ok=True)
        config, code = fingerprints(run, start)
        return FileLock(folder / f"{config}-{code['training']}")

    def _execute(self, words: Sequence[str], log: Path) -> int:
        """Run anomaly_lab with these words in a process, append its output to `log`, and return the exit status."""
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab", opener=no_link) as file:
            process = subprocess.Popen(
                [*self.command, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches it only once, through `_stop`
                env={"OMP_NUM_THREADS": str(threads), **os.environ},
            )
            self._processes.add(process)
            if self._stopping:
                process.terminate()
        status = process.wait()
        self._processes.discard(process)
        return status

    def _stop(self) -> None:
        """Interrupt all processes; kill those that have not stopped after GRACE seconds."""
        self._stopping = True
        for process in list(self._processes):
            process.send_signal(signal.SIGINT)
        for process in list(self._processes):
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
                continue
            process.kill()

    def _report(self, run: Planned, outcome: Outcome, done: int, total: int) -> None:
        details = outcome.reason if outcome.run is None else str(outcome.run.folder)
        self.say(f"[{done}/{total}] {run.key}: {outcome.state}, {details}")


def look_up(ledger: Ledger, plan: Iterable[Planned]) -> dict[Key, Found | None]:
    """Look up which runs of a plan exist, finished or not, without training any.

    A run whose start is not finished counts as missing, because its start is part of its identity.

    Args:
        ledger: finds the existing runs.
        plan: the runs to look up, each after the one it starts from.

    Examples:
        >>> import tempfile
        >>> key = Key("vae", "headct", 0)
        >>> run = Planned(key, "vae_headct", (), {"data": None, "detector": None}, start=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     look_up(Ledger(Path(folder)), [run]) == {key: None}
        True
    """
    existing: dict[Key, Found | None] = {}
    for run in plan:
        start = existing[run.start] if run.start else None
        existing[run.key] = None if run.start and not (start and start.finished) else ledger.match(run, start)
    return existing


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
