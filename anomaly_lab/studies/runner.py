"""Have the missing runs of a study trained by jobs; failed runs do not stop the others."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from anomaly_lab.experiment import fingerprint, run_folder
from anomaly_lab.experiment.regular import regular
from anomaly_lab.studies.jobs import Claims, Job, Launcher, Local, Task, states
from anomaly_lab.studies.ledger import Found, Ledger
from anomaly_lab.studies.plan import Key, Planned, plain
from anomaly_lab.types import UserError

State = Literal["found", "trained", "resumed", "evaluated", "failed"]
Say = Callable[[str], None]
COMMAND = (sys.executable, "-m", "anomaly_lab")
PROCESSES = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")  # what resume takes
PLACE = ("root", "source")  # of the data: what the name of a claim leaves out


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


class Started(NamedTuple):
    """A job for a planned run.

    Attributes:
        job: the job.
        state: the outcome's state, if the run is finished in the end; None for a job that was there already.
        after: jobs that it waits for.
        found: the run, if it is trained and only evaluated again: what starts from it is known already.
    """

    job: Job
    state: State | None
    after: tuple[Job, ...] = ()
    found: Found | None = None


@dataclass
class Runner:
    """Has the missing runs of a plan trained.

    Every job trains into a run folder that is chosen here, so that a job that is requeued, or submitted again, goes on.

    Attributes:
        ledger: finds existing runs; new ones are written to its folder.
        logs: folder for the output of each run.
        launcher: starts or queues the jobs.
        say: called with a line of text at the start and the end of each run.
        command: command line of anomaly_lab.

    Examples:
        Train what is missing of a study, two runs at a time::

            runner = Runner(Ledger(Path("runs")), logs=Path("runs/studies/medical_images/logs"), launcher=Local(jobs=2))
            outcomes = runner.run_all(plan(load("medical_images")))
    """

    ledger: Ledger
    logs: Path
    launcher: Launcher = field(default_factory=Local)
    say: Say = print
    command: Sequence[str] = COMMAND

    def __post_init__(self) -> None:
        self.claims = Claims(self.ledger.runs / ".claims")
        self._outcomes: dict[Key, Outcome] = {}
        self._running: dict[Key, Started] = {}
        self._readers: dict[str, Job] = {}
        self._total = 0

    def run_all(self, plan: Sequence[Planned]) -> dict[Key, Outcome]:
        """Find or train every run of the plan; a warm start waits for the run it starts from.

        Ctrl-C stops all runs on this machine and leaves jobs of a cluster alone; the next call goes on with both.
        """
        self._outcomes, self._running, self._total = {}, {}, len(plan)
        names = claim_names(plan)
        try:
            while len(self._outcomes) < len(plan):
                for run in plan:
                    if run.key not in self._outcomes and run.key not in self._running:
                        self._begin(run, names[run.key])
                alive = states([job for started in self._running.values() for job in (started.job, *started.after)])
                for run in plan:
                    if run.key in self._running and self._running[run.key].job.id not in alive:
                        self._end(run, names[run.key])
                if self._running:
                    time.sleep(self.launcher.pause)
        except BaseException:
            if self._running:
                jobs = [started.job for started in self._running.values()]
                self.say(f"the study is interrupted: {self.launcher.leave(jobs)}")
            raise
        return {run.key: self._outcomes[run.key] for run in plan}

    def _begin(self, run: Planned, name: str) -> None:
        """Find a run, or the job that makes it, or submit one, unless the run has to wait."""
        start = self._outcomes.get(run.start) if run.start else None
        if start and not start.run:
            self._conclude(run, Outcome("failed", reason=f"it starts from {run.start}, which failed"))
            return
        ahead = self._running.get(run.start) if run.start and not start else None
        full = self.launcher.jobs is not None and len(self._running) >= self.launcher.jobs
        if full or (run.start and not start and not (ahead and self.launcher.queues)):
            return
        try:
            with self.claims.locked(name):
                known = start.run if start else ahead.found if ahead else None
                self._find_or_submit(run, name, known, ahead)
        except (UserError, OSError) as error:
            self._conclude(run, Outcome("failed", reason=" ".join(str(error).split())))

    def _find_or_submit(self, run: Planned, name: str, start: Found | None, ahead: Started | None) -> None:
        found = None if ahead and not start else self.ledger.match(run, start)
        if found and found.finished and not self.ledger.is_stale(run, found):
            self.claims.remove(name)
            self._conclude(run, Outcome("found", found))
            return
        claim = self.claims.read(name)
        if claim and states([claim]):
            self.say(f"{run.key}: job {claim.id} is at it")
            self._running[run.key] = Started(claim, None)
            return
        start_folder = ahead.job.run if ahead else str(start.folder) if start else None
        place = found.folder if found else self._place(run, claim, None if start else ahead)
        after = (*([ahead.job] if ahead else []), *self._reading_data(run, place))
        state: State = "evaluated" if found and found.finished else "resumed" if place.exists() else "trained"
        moved_to = self.ledger.moved_to(run, found) if found else None
        if found and (moved_to or state == "evaluated"):
            words = _words_for(run, found, moved_to)
        else:
            words = self._train_words(run, place, start_folder)
        self._running[run.key] = Started(
            self._submit(run, str(run.key), words, place, after), state, after, found if state == "evaluated" else None
        )
        self.claims.write(name, self._running[run.key].job)
        activity = {"evaluated": "evaluating again", "resumed": "resuming", "trained": "training"}[state]
        self.say(f"{run.key}: {activity}{f', job {self._running[run.key].job.id}' if self.launcher.queues else ''}")

    def _place(self, run: Planned, claim: Job | None, ahead: Started | None) -> Path:
        """Return the folder that an earlier job was to train into, or a new one.

        What has begun there is another run, of other files or another start, else the ledger would have found it; but
        it does not know one whose start is still at work.
        """
        if claim is not None:
            config = Path(claim.run) / "config.yaml"
            if not config.exists():
                return Path(claim.run)
            begun = plain(regular(config).read_text()) if ahead else {}
            same_data = all((begun.get("data") or {}).get(key) == run.config["data"].get(key) for key in PLACE)
            if ahead and begun.get("start_from") == ahead.job.run and same_data:
                return Path(claim.run)
        return run_folder.new_place(self.ledger.runs, run.experiment, (str(run.config.get("budget", "")),))

    def _train_words(self, run: Planned, place: Path, start_folder: str | None) -> list[str]:
        warm_start = [f"start_from={start_folder}"] if start_folder else []
        return ["train", run.experiment, "--into", str(place), *run.overrides, *warm_start, f"runs={self.ledger.runs}"]

    def _reading_data(self, run: Planned, place: Path) -> tuple[Job, ...]:
        """Return the job that reads the run's data into the store, on a cluster, where the others would wait for it."""
        if not self.launcher.queues or place.exists():
            return ()
        section = json.dumps(run.config["data"], sort_keys=True)
        name = f"data-{hashlib.sha256(section.encode()).hexdigest()[:16]}"
        with self.claims.locked(name):
            job = self._readers.get(name) or self.claims.read(name)
            if job is None or (name not in self._readers and not states([job])):
                words = ["data", run.experiment, *run.overrides, f"runs={self.ledger.runs}"]
                job = self._submit(run, f"data-{run.key}", words, place, ())
                self.say(f"{run.key}: reading its data first, job {job.id}")
                self.claims.write(name, job)
            self._readers[name] = job
        return (job,) if states([job]) else ()

    def _submit(self, run: Planned, name: str, words: Sequence[str], place: Path, after: Sequence[Job]) -> Job:
        trainer = (run.config.get("trainer") or {}) if words[0] in ("train", "resume") else {}
        return self.launcher.submit(Task(name, [*self.command, *words], place, self.logs / name, trainer, after))

    def _end(self, run: Planned, name: str) -> None:
        """Look what a job that has ended left behind."""
        start = self._outcomes.get(run.start) if run.start else None
        if run.start and start is None:
            return  # both have ended; its start is looked at first
        started = self._running.pop(run.key)
        try:
            result = None if start and not start.run else self.ledger.match(run, start.run if start else None)
        except (UserError, OSError) as error:
            self._conclude(run, Outcome("failed", reason=" ".join(str(error).split())))
            return
        if result and result.finished and not self.ledger.is_stale(run, result):
            self.claims.remove(name)
            self._conclude(run, Outcome(started.state or "found", result))
        elif started.state is not None:
            self._conclude(run, Outcome("failed", reason=self._reason(run, started, start)))
        # else it was another study's job: the next round submits one

    def _reason(self, run: Planned, started: Started, start: Outcome | None) -> str:
        if start and not start.run:
            return f"it starts from {run.start}, which failed"
        facts = run_folder.read_json(Path(started.job.run) / "provenance.json")
        if facts.get("finished") and started.state != "evaluated":
            return (
                "its process succeeded, but no finished run with the planned configuration, code and data was found; "
                "code or data may have changed meanwhile: start the study again"
            )
        logs = [job for job in (started.job, *reversed(started.after)) if job.last_line()]
        return f"{logs[0].last_line()} ({logs[0].log})" if logs else f"it printed nothing ({started.job.log})"

    def _conclude(self, run: Planned, outcome: Outcome) -> None:
        self._outcomes[run.key] = outcome
        details = outcome.reason if outcome.run is None else str(outcome.run.folder)
        self.say(f"[{len(self._outcomes)}/{self._total}] {run.key}: {outcome.state}, {details}")


def _words_for(run: Planned, found: Found, moved_to: Path | None) -> list[str]:
    """Return the words that evaluate a finished run again or resume another, of files that may lie elsewhere now."""
    root = ["--data-root", str(moved_to)] if moved_to else []
    if found.finished:
        return ["evaluate", str(found.folder), *root]
    words = [word for word in run.overrides if word.partition("=")[0] in PROCESSES]
    return ["resume", str(found.folder), *root, *words]


def claim_names(plan: Iterable[Planned]) -> dict[Key, str]:
    """Return a name for what each run of a plan is, before its data are read: of its configuration, code and start.

    Args:
        plan: the runs, each after the one it starts from.

    Examples:
        >>> key = Key("vae", "headct", 0)
        >>> run = Planned(key, "vae_headct", (), {"data": None, "detector": None}, start=None)
        >>> len(claim_names([run])[key])
        33
    """
    names: dict[Key, str] = {}
    for run in plan:
        config = fingerprint.of_config(run.config, names[run.start] if run.start else None)
        names[run.key] = f"{config}-{fingerprint.of_code(run.config)['training']}"
    return names


def progress(ledger: Ledger, plan: Sequence[Planned]) -> dict[Key, str]:
    """Say of every run of a plan whether it is finished, runs, waits or failed, and why.

    Args:
        ledger: finds the existing runs.
        plan: the runs, each after the one it starts from.

    Examples:
        >>> import tempfile
        >>> run = Planned(Key("vae", "headct", 0), "vae_headct", (), {"data": None, "detector": None}, start=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     progress(Ledger(Path(folder)), [run]) == {run.key: "not begun"}
        True
    """
    claims = Claims(ledger.runs / ".claims")
    jobs = {key: claims.read(name) for key, name in claim_names(plan).items()}
    alive = states([job for job in jobs.values() if job])
    by_key, existing = {run.key: run for run in plan}, look_up(ledger, plan)
    stale = {key: bool(found and ledger.is_stale(by_key[key], found)) for key, found in existing.items()}
    return {key: _progress(found, jobs[key], alive, stale[key]) for key, found in existing.items()}


def _progress(found: Found | None, job: Job | None, alive: dict[str, str], is_stale: bool) -> str:
    if found and found.finished and not is_stale:
        return f"finished: {found.folder}"
    if job and job.id in alive:
        return f"job {job.id} {alive[job.id]}: {job.last_line() or 'nothing printed yet'}"
    if job:
        return f"failed: {job.last_line() or 'it printed nothing'} ({job.log})"
    if found and found.finished:
        return f"to be evaluated again, its evaluation was interrupted or is of other code: {found.folder}"
    return f"unfinished: {found.folder}" if found else "not begun"


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
