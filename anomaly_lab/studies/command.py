"""The verb `study`: plans, says what it will take, trains what is missing, writes the page."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from anomaly_lab.experiment.run_folder import read_json, write_atomic
from anomaly_lab.experiment.schema import merged
from anomaly_lab.pipeline.console import quiet_lightning
from anomaly_lab.pipeline.cost import phase_seconds
from anomaly_lab.reports.html import duration
from anomaly_lab.studies import plan
from anomaly_lab.studies.findings import read_findings
from anomaly_lab.studies.ledger import Code, Found, Ledger
from anomaly_lab.studies.page import page
from anomaly_lab.studies.plan import Planned, Study
from anomaly_lab.studies.runner import Outcome, Runner, look_up
from anomaly_lab.types import UserError

console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class Options:
    """What the command line may say of a study beside what goes to its runs.

    Attributes:
        jobs: runs at once.
        code: "any" takes finished runs of other code, too.
        runs: folder of the run folders; the study's own is runs/studies/<name>.
        budget: instead of the study's.
        rows, datasets, seeds: only these.
    """

    jobs: int = 1
    code: Code = "same"
    runs: str = "runs"
    budget: str | None = None
    rows: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)


def main(name: str, words: Sequence[str], dry_run: bool = False, page_only: bool = False) -> int:
    """Run the study `name`; the exit status is 1 if any of its runs is missing in the end.

    Args:
        name: of the study.
        words: key=value; those of `Options`, others go to every run.
        dry_run: only print what would run and how long that would take.
        page_only: train nothing, write the page of what is finished.
    """
    options, overrides = _split(words)
    study = plan.load(name)
    study = dataclasses.replace(study, budget=options.budget or study.budget)
    study = plan.narrowed(study, options.rows, options.datasets, options.seeds)
    planned = plan.plan(study, overrides)
    ledger = Ledger(Path(options.runs), options.code)
    if dry_run:
        _announce(planned, look_up(ledger, planned), options.jobs)
        return 0
    folder = ledger.runs / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "study.yaml", OmegaConf.to_yaml(OmegaConf.structured(study)))
    if page_only:
        outcomes = {key: _as_it_is(found) for key, found in look_up(ledger, planned).items()}
    else:
        outcomes = _bring_about(Runner(ledger, folder / "logs", options.jobs), planned)
    written = write_page(study, outcomes, folder)
    missing = [key for key, outcome in outcomes.items() if outcome.run is None]
    console.print(f"{len(outcomes) - len(missing)} of {len(outcomes)} runs have a result; page: {escape(str(written))}")
    return 1 if missing else 0


def write_page(study: Study, outcomes: dict[plan.Key, Outcome], folder: Path) -> Path:
    """The page from the records of the runs that were found or made; its path is returned."""
    runs = {key: outcome.run.folder for key, outcome in outcomes.items() if outcome.run}
    missing = {key: outcome.reason for key, outcome in outcomes.items() if outcome.run is None}
    return page.write(read_findings(study, runs, missing), folder)


def _as_it_is(found: Found | None) -> Outcome:
    if found is None or not found.finished:
        return Outcome("failed", reason="not trained yet" if found is None else "unfinished")
    return Outcome("found", found)


def _split(words: Sequence[str]) -> tuple[Options, list[str]]:
    own = {option.name for option in dataclasses.fields(Options)}
    mine = [word for word in words if word.partition("=")[0] in own]
    others = [word for word in words if word not in mine]
    for word in others:
        if "=" not in word:
            raise UserError(f"'{word}' is not key=value, as in jobs=2 or seeds=[0,1]")
        if word.partition("=")[0] in ("seed", "start_from", "name"):
            raise UserError(f"{word}: a study sets this itself; choose with seeds=[…] and rows=[…]")
    options: Any = OmegaConf.to_object(merged(OmegaConf.structured(Options), OmegaConf.from_dotlist(mine)))
    if options.jobs < 1:
        raise UserError("jobs starts at 1")
    return options, others


def _bring_about(runner: Runner, planned: Sequence[Planned]) -> dict[plan.Key, Outcome]:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's stop is a Ctrl-C: no run is left alone
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("runs", total=len(planned))

        def say(line: str) -> None:
            console.print(escape(line))
            if line.startswith("["):  # an end, not a start
                progress.advance(task)

        runner.say = say
        return runner.bring_about(planned)


def _announce(planned: Sequence[Planned], there: dict[plan.Key, Found | None], jobs: int) -> None:
    """What is finished, what would run, and for how long; a run is measured once for all its seeds."""
    rows = Table("run", "experiment", "state", "about", box=None)
    total, measured = 0.0, dict[str, dict[str, float]]()
    for run in planned:
        found = there[run.key]
        if found and found.finished:
            rows.add_row(str(run.key), run.experiment, "finished", "")
            continue
        seconds = _expected(run, [f for key, f in there.items() if f and key[:2] == run.key[:2]], measured)
        total += seconds
        state = "unfinished, will resume" if found else f"starts from {run.start}" if run.start else "will train"
        rows.add_row(str(run.key), run.experiment, state, duration(round(seconds)))
    console.print(rows)
    lacking = sum(not (found and found.finished) for found in there.values())
    console.print(
        f"{lacking} of {len(planned)} runs would train: about {duration(round(total / jobs))} with jobs={jobs} "
        "(by finished runs of other seeds, else by one measured iteration; start-up and scoring not counted)"
    )


def _expected(run: Planned, others: Sequence[Found], measured: dict[str, dict[str, float]]) -> float:
    """Seconds of a run's training: another seed's, else measured; a phase that is taken over costs nothing."""
    for other in others:
        if other.finished and (seconds := read_json(other.folder / "provenance.json").get("seconds")):
            return float(sum(seconds.values()))
    kind = json.dumps({name: run.config[name] for name in ("detector", "trainer")}, sort_keys=True)
    if kind not in measured:
        measured[kind] = _measured(run)
    phases = measured[kind]
    return sum(list(phases.values())[1 if run.start else 0 :])


def _measured(run: Planned) -> dict[str, float]:
    with quiet_lightning():
        return phase_seconds(OmegaConf.create(run.config))
