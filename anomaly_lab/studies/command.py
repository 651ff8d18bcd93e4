"""The command `study`: plan the runs, estimate their time, train those that are missing, and write the page."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.fingerprint import NAMES_AND_PLACES
from anomaly_lab.experiment.record import read_provenance
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.experiment.words import own_settings
from anomaly_lab.pipeline.console import quiet_lightning
from anomaly_lab.pipeline.cost import phase_seconds
from anomaly_lab.reports.html import duration
from anomaly_lab.studies import plan
from anomaly_lab.studies.findings import read_findings
from anomaly_lab.studies.jobs import Kind, Launcher, Local, Slurm, minutes
from anomaly_lab.studies.ledger import Code, Found, Ledger
from anomaly_lab.studies.page import page
from anomaly_lab.studies.plan import Planned, Study
from anomaly_lab.studies.runner import Outcome, Runner, look_up, progress
from anomaly_lab.types import UserError

console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class Options:
    """Options of the command `study`; all other words `key=value` go to the runs.

    Attributes:
        launcher: "local" trains on this machine, "slurm" queues a job for every run on a cluster.
        jobs: number of runs at the same time; by default one on this machine, any number on a cluster.
        partition, gpus, cpus, time, sbatch: what a job asks the cluster for, see `Slurm`; the time limit is a number
            with its unit, such as 90m, 4h or 2d.
        code: "same" reuses finished runs only if the present code made them, "any" reuses all.
        runs: folder of the run folders; the study's own folder is runs/studies/<name>.
        budget: replaces the study's budget.
        rows, datasets, seeds: restrict the study to these; empty for all. The page of a part of a study, or of one on
            other data, with other settings or at another budget, has a folder of its own in that of the study, and
            leaves the page of the whole as it is.
        data: of a study on one data set, the name of the data set to take instead, such as folder.
    """

    launcher: Kind = "local"
    jobs: int | None = None
    partition: str | None = None
    gpus: int = 0
    cpus: int = 2
    time: str = "4h"
    sbatch: dict[str, Any] = field(default_factory=dict)
    code: Code = "same"
    runs: str = "runs"
    budget: str | None = None
    rows: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    data: str | None = None


MAX_NAME = 80  # characters of the folder of a part of a study
HOW = re.compile(  # words without effect on what is trained: where, and how it is recorded and shown
    r"trainer\.(accelerator|devices|num_nodes|strategy)=|"
    r"callbacks\.(record|samples|reconstructions|health|wandb|tensorboard|mlflow|csv|progress|checkpoints)"
    r"(=|\.(?!_target_))"
)
OF_CLUSTER = ("partition", "gpus", "cpus", "time", "sbatch")  # options that only launcher=slurm takes


def main(name: str, words: Sequence[str], dry_run: bool = False, page_only: bool = False, status: bool = False) -> int:
    """Run a study and write its page.

    Args:
        name: of the study.
        words: `key=value` each; keys of `Options`, all others are overrides for every run.
        dry_run: only print which runs would train and how long that would take.
        page_only: train nothing; write the page from the runs that are finished.
        status: train nothing; print of every run whether it is finished, runs, waits or failed, and why.

    Returns:
        Exit status: 1 if any run has no result in the end, otherwise 0.

    Raises:
        UserError: the study does not exist, or a word is not valid.

    Examples:
        From a shell::

            anomaly-lab study medical_images --dry-run datasets=[headct] seeds=[0,1] jobs=2
    """
    options, overrides = _split(words)
    whole = plan.load(name)
    own = plan.resolved_budget(whole)
    whole = dataclasses.replace(whole, budget=options.budget or whole.budget)
    if plan.resolved_budget(whole) == own:
        options.budget = None  # its own, said aloud: the page is that of the whole
    whole = plan.on(whole, options.data) if options.data else whole
    study, part = _narrowed(whole, options, overrides)
    launcher = _launcher(options, study, overrides)
    planned = plan.plan(study, overrides)
    ledger = Ledger(Path(options.runs), options.code)
    if status:
        return _print_status(progress(ledger, planned))
    if dry_run:
        for data in {json.dumps(run.config["data"]): run.config["data"] for run in planned}.values():
            configuration.build(OmegaConf.create(data))  # which says if there is no such folder
        _check_folds(planned)
        _print_plan(planned, look_up(ledger, planned), options)
        return 0
    if not page_only:
        _check_folds(planned)
    logs = ledger.runs / "studies" / name / "logs"
    folder = logs.parent / part
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "study.yaml", OmegaConf.to_yaml(OmegaConf.structured(study)))
    if page_only:
        existing = look_up(ledger, planned)
        _refuse_unmounted(ledger, planned, existing)
        outcomes = {run.key: _outcome_without_training(ledger, run, existing[run.key]) for run in planned}
    else:
        outcomes = _train_missing(Runner(ledger, logs, launcher), planned)
    page_path = write_page(study, outcomes, folder)
    missing = [key for key, outcome in outcomes.items() if outcome.run is None]
    finished = len(outcomes) - len(missing)
    console.print(f"{finished} of {len(outcomes)} runs have a result; page: {escape(str(page_path))}")
    return 1 if missing else 0


def _check_folds(planned: Sequence[Planned]) -> None:
    """Refuse data that cannot be cut into the study's folds, before the first of its many runs trains."""
    first = {(run.key.dataset, run.config["data"].get("supervision")): run for run in planned if run.key.fold == 0}
    for run in first.values():
        data: PatchDataModule = configuration.build(OmegaConf.create(run.config["data"]))
        data.check_split()


def write_page(study: Study, outcomes: dict[plan.Key, Outcome], folder: Path) -> Path:
    """Write the study's page from the run folders of its finished runs, and return its path.

    Args:
        study: the study.
        outcomes: of every planned run.
        folder: for the page and its tables.

    Examples:
        >>> import tempfile
        >>> study = Study("toy", "Toy", datasets={"set": plan.DataSet("Set")}, rows={"vae": plan.Row("VAE", "vae_toy")})
        >>> outcomes = {plan.Key("vae", "set", 0): Outcome("failed", reason="not trained yet")}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_page(study, outcomes, Path(folder)).name
        'index.html'
    """
    runs = {key: outcome.run.folder for key, outcome in outcomes.items() if outcome.run}
    missing = {key: outcome.reason for key, outcome in outcomes.items() if outcome.run is None}
    return page.write(read_findings(study, runs, missing), folder)


def _outcome_without_training(ledger: Ledger, run: plan.Planned, found: Found | None) -> Outcome:
    if found is None or not found.finished:
        return Outcome("failed", reason="not trained yet" if found is None else "unfinished")
    if found.evaluating:
        return Outcome("failed", reason=f"its evaluation was interrupted; make evaluate RUN={found.folder}")
    if ledger.is_stale(run, found):
        return Outcome("failed", reason=f"evaluated by other code; make evaluate RUN={found.folder}, or code=any")
    return Outcome("found", found)


def _refuse_unmounted(
    ledger: Ledger, planned: Sequence[plan.Planned], existing: Mapping[plan.Key, Found | None]
) -> None:
    """Refuse to write a page over a better one where the files of runs that exist are not mounted.

    Raises:
        UserError: says where they were.
    """
    for run in planned:
        if run.start is None and existing[run.key] is None and (root := ledger.unmounted(run)):
            raise UserError(
                f"{run.key}: there is a run on the real files in {root}, which are not there; mount them, or say where "
                "they lie: data.root=…"
            )


def _narrowed(whole: Study, options: Options, overrides: Sequence[str] = ()) -> tuple[Study, str]:
    """Return the study that was asked for, and the name of its folder in that of the whole; "" if it is the whole."""
    settings = _telling(options, overrides)
    study = plan.narrowed(whole, options.rows, options.datasets, options.seeds)
    asked = {
        "rows": [name for name in whole.rows if name in options.rows],
        "data sets": [name for name in whole.datasets if name in options.datasets],
        "seeds": [str(seed) for seed in sorted(set(options.seeds))],
    }
    all_of = {"rows": list(whole.rows), "data sets": list(whole.datasets), "seeds": [*map(str, sorted(whole.seeds))]}
    some = {kind: names for kind, names in asked.items() if names and names != all_of[kind]}
    if not some and not settings:
        return study, ""
    only = "; ".join(f"{kind} {', '.join(names)}" for kind, names in some.items())
    said = ([f"only {only}"] if some else []) + ([f"with {', '.join(settings)}"] if settings else [])
    names = [f"seed{name}" if kind == "seeds" else name for kind, names in some.items() for name in names]
    named = "-".join((["only", *names] if some else []) + (["with", *settings] if settings else []))
    part = re.sub(r"[^\w.-]", "_", named)
    if part != named or len(part) > MAX_NAME:
        part = f"{part[: MAX_NAME - 9]}-{hashlib.sha256(repr((some, settings)).encode()).hexdigest()[:8]}"
    return dataclasses.replace(study, title=f"{whole.title}: {'; '.join(said)}"), part


def _telling(options: Options, overrides: Sequence[str]) -> dict[str, str]:
    """Return what makes the runs others than the study's own: another budget or data set, its folder, settings.

    Returns:
        By each word as the page shows it, what tells it apart beyond that: of data.root the whole path, otherwise "".
    """
    found = {f"{key}={value}": "" for key in ("budget", "data") if (value := getattr(options, key))}
    for word in sorted(overrides):
        key, _, value = word.partition("=")
        if key == "data.root":
            root = Path(value).expanduser().absolute()
            found[f"{key}={root.name}"] = str(root)
        elif key == "data.source" or (key not in NAMES_AND_PLACES and not HOW.match(word)):
            short = f"{key}={Path(value).name}" if Path(value).is_absolute() else word
            found[short] = "" if short == word else value
    return found


def _split(words: Sequence[str]) -> tuple[Options, list[str]]:
    """Split the words into the study's options and the overrides for its runs."""
    options, overrides = own_settings(Options, words, sections=("sbatch",))
    for word in overrides:
        if "=" not in word:
            raise UserError(f"'{word}' is not of the form key=value, as in jobs=2 or seeds=[0,1]")
        if word.partition("=")[0] in ("seed", "start_from", "name"):
            raise UserError(f"{word}: the study sets this for each run; select runs with seeds=[…] and rows=[…]")
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"jobs={options.jobs}: must be at least 1")
    if options.gpus < 0 or options.cpus < 1:
        raise UserError(f"gpus={options.gpus} cpus={options.cpus}: must be at least 0 and 1")
    return options, overrides


def _launcher(options: Options, study: Study, overrides: Sequence[str]) -> Launcher:
    """Return what starts the study's jobs."""
    if options.launcher == "local":
        for name in OF_CLUSTER:
            if getattr(options, name) != getattr(Options(), name):
                raise UserError(f"{name}: says what a job on a cluster asks for; add launcher=slurm")
        return Local(options.jobs or 1)
    if study.budget == "auto" or "budget=auto" in overrides:
        raise UserError(
            "budget=auto: this host, which will not train, cannot know it for the nodes that will; say budget=paper or "
            "budget=laptop"
        )
    limit = minutes(options.time)
    return Slurm(limit, options.partition, options.gpus, options.cpus, options.sbatch, options.jobs)


def _train_missing(runner: Runner, planned: Sequence[Planned]) -> dict[plan.Key, Outcome]:
    """Train what is missing, with a progress bar on a terminal."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a machine that shuts down acts like Ctrl-C
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("runs", total=len(planned))

        def say(line: str) -> None:
            console.print(escape(line))
            if line.startswith("["):  # the run has ended
                progress.advance(task)

        runner.say = say
        return runner.run_all(planned)


def _print_status(states: dict[plan.Key, str]) -> int:
    """Print what has become of every run; return 1 unless all are finished."""
    for key, state in states.items():
        console.print(escape(f"{key}: {state}"))
    finished = sum(state.startswith("finished") for state in states.values())
    console.print(f"{finished} of {len(states)} runs are finished")
    return 0 if finished == len(states) else 1


def _print_plan(planned: Sequence[Planned], existing: dict[plan.Key, Found | None], options: Options) -> None:
    """Print which runs are finished, which would train, and how long; a configuration is timed once for all seeds."""
    rows = Table("run", "experiment", "state", "time", box=None)
    jobs = options.jobs or 1
    total, measured = 0.0, dict[str, dict[str, float]]()
    for run in planned:
        found = existing[run.key]
        if found and found.finished:
            rows.add_row(str(run.key), run.experiment, "finished", "")
            continue
        other_seeds = [other for key, other in existing.items() if other and key[:2] == run.key[:2]]
        seconds = _expected_seconds(run, other_seeds, measured)
        total += seconds
        state = "unfinished, will resume" if found else f"starts from {run.start}" if run.start else "will train"
        rows.add_row(str(run.key), run.experiment, state, duration(round(seconds)))
    console.print(rows)
    num_missing = sum(not (found and found.finished) for found in existing.values())
    console.print(
        f"{num_missing} of {len(planned)} runs would train: about {duration(round(total / jobs))} with jobs={jobs} "
        "(estimated from finished runs of other seeds, otherwise from one measured iteration; without start-up and "
        "scoring)"
    )


def _expected_seconds(run: Planned, other_seeds: Sequence[Found], measured: dict[str, dict[str, float]]) -> float:
    """Return a run's expected training time: that of another seed, or measured; a warm start skips the first phase."""
    for other in other_seeds:
        if other.finished and (seconds := read_provenance(other.folder).get("seconds")):
            return float(sum(seconds.values()))
    setup = json.dumps({name: run.config[name] for name in ("detector", "trainer")}, sort_keys=True)
    if setup not in measured:
        measured[setup] = _measure(run)
    phases = measured[setup]
    return sum(list(phases.values())[1 if run.start else 0 :])


def _measure(run: Planned) -> dict[str, float]:
    with quiet_lightning():
        return phase_seconds(OmegaConf.create(run.config))
