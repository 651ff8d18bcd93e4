"""A study as its YAML states it, and the runs it takes: rows × data sets × seeds, each an experiment with overrides."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from yaml import YAMLError

from anomaly_lab.experiment import compose
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.schema import did_you_mean, merged
from anomaly_lab.types import UserError

PLACEHOLDER = 2_147_480_611  # stands for the seed while an experiment is resolved: a number nobody writes


@dataclass
class DataSet:
    """A column of the study.

    Attributes:
        title: as tables have it.
        experiments: takes the place of {dataset} in the rows' experiments; the column's own key unless said otherwise.
        overrides: laid over every experiment of the column, by dotted key.
        budgets: the same for one budget.
        notes: keys of `footnotes`.
    """

    title: str = MISSING
    experiments: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Row:
    """A method, or a method with one setting.

    Attributes:
        title: as tables have it.
        experiment: of each data set; {dataset} stands for it.
        overrides: laid over the experiment and over the data set's, by dotted key.
        budgets: the same for one budget.
        start_from: row whose finished run, of the same data set and seed, lends its first phase.
        seeds: instead of the study's.
        datasets: instead of all of the study's.
        paper: the publication's AUROC by data set.
        x: position on the study's curve.
        hidden: whether it is only trained, for others to start from.
        against: row that this one is tested against, instead of the study's reference.
        notes: keys of `footnotes`.
    """

    title: str = MISSING
    experiment: str = MISSING
    overrides: dict[str, Any] = field(default_factory=dict)
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    start_from: str | None = None
    seeds: list[int] | None = None
    datasets: list[str] | None = None
    paper: dict[str, float] = field(default_factory=dict)
    x: float | None = None
    hidden: bool = False
    against: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Study:
    """A question to many runs.

    Attributes:
        name: the file's name.
        title: of the page.
        question: what the study is to answer, a sentence or two.
        source: whose numbers stand beside ours.
        budget: of every run, see config.Experiment; no study mixes budgets.
        seeds: of every row that has none of its own; a seed draws the split too, so that rows pair.
        datasets: the columns.
        rows: the methods, from top to bottom.
        reference: row that the others are tested against; the first unless said otherwise.
        curve: what the rows' `x` measures, the axis of the curve; none without it.
        footnotes: what we chose where the publication is silent, by key.
    """

    name: str = MISSING
    title: str = MISSING
    question: str = ""
    source: str = "Published"
    budget: str = "auto"
    seeds: list[int] = field(default_factory=lambda: [0])
    datasets: dict[str, DataSet] = MISSING
    rows: dict[str, Row] = MISSING
    reference: str | None = None
    curve: str | None = None
    footnotes: dict[str, str] = field(default_factory=dict)


class Key(NamedTuple):
    """Which run of the study."""

    row: str
    dataset: str
    seed: int

    def __str__(self) -> str:
        return f"{self.row}-{self.dataset}-seed{self.seed}"


@dataclass(frozen=True)
class Planned:
    """A run that the study needs.

    Attributes:
        key: which one.
        experiment: its YAML.
        overrides: `key=value` words for the command line, the budget and the seed among them.
        config: what these resolve to, plain Python.
        start: the run it starts from.
    """

    key: Key
    experiment: str
    overrides: tuple[str, ...]
    config: dict[str, Any]
    start: Key | None


def studies() -> list[str]:
    """Names of all studies."""
    return list(compose.studies())


def load(name: str) -> Study:
    """The study `name`, checked.

    Raises:
        UserError: there is none, or something in its file is wrong; names the key.
    """
    known = compose.studies()
    if name not in known:
        raise UserError(f"no study '{name}'.{did_you_mean(name, known)} There are: {', '.join(known) or 'none'}")
    path = known[name]
    try:
        written = OmegaConf.load(path)
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(written, DictConfig):
        raise UserError(f"{path}: must be a mapping, not a list")
    try:
        checked = merged(OmegaConf.structured(Study(name=name)), written)
        if missing := sorted(OmegaConf.missing_keys(checked)):
            raise UserError(f"Missing mandatory value: {', '.join(missing)}")
        study: Any = OmegaConf.to_object(checked)
        _refuse_unknown_names(study)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    assert isinstance(study, Study)
    return study


def narrowed(study: Study, rows: Sequence[str] = (), datasets: Sequence[str] = (), seeds: Sequence[int] = ()) -> Study:
    """The part of a study that has these rows, data sets and seeds; what a kept row starts from stays, hidden.

    Rows without any of these data sets go, unless they are named, and so do footnotes that nothing shown points to.

    Raises:
        UserError: there is no such row or data set.
    """
    _refuse_strangers("rows", rows, study.rows)
    _refuse_strangers("datasets", datasets, study.datasets)
    columns = {name: column for name, column in study.datasets.items() if not datasets or name in datasets}
    wanted = rows or [name for name, row in study.rows.items() if not {*(row.datasets or columns)}.isdisjoint(columns)]
    kept = {name: row for name, row in study.rows.items() if name in wanted}
    starts = {row.start_from for row in kept.values()} - {None, *kept}
    kept = {name: row if name in kept else replace(row, hidden=True) for name, row in study.rows.items()
            if name in kept or name in starts}  # fmt: skip
    if seeds:
        kept = {name: replace(row, seeds=[s for s in row.seeds or seeds if s in seeds]) for name, row in kept.items()}
    reference = study.reference if study.reference in kept else None
    shown: list[Row | DataSet] = [row for row in kept.values() if not row.hidden]
    used = {note for part in [*shown, *columns.values()] for note in part.notes}
    footnotes = {note: text for note, text in study.footnotes.items() if note in used}
    seeds = list(seeds or study.seeds)
    return replace(study, rows=kept, datasets=columns, seeds=seeds, reference=reference, footnotes=footnotes)


def plan(study: Study, overrides: Sequence[str] = ()) -> list[Planned]:
    """Every run of a study; a run comes after the one it starts from. `overrides` go to all of them.

    Raises:
        UserError: an experiment does not exist, or does not take one of its overrides.
    """
    runs: dict[Key, Planned] = {}
    for key in _keys(study):
        _add(study, key, overrides, runs)
    return list(runs.values())


def plain(text: str) -> dict[str, Any]:
    """The content of a config.yaml as plain Python, in a hundredth of the time that checking it takes."""
    content: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content


def _keys(study: Study) -> Iterator[Key]:
    """Seed by seed, so that a study stopped half-way has whole columns of its first seeds."""
    highest = sorted({seed for row in study.rows.values() for seed in _seeds(study, row)})
    for seed in highest:
        for dataset in study.datasets:
            for name, row in study.rows.items():
                if seed in _seeds(study, row) and dataset in (row.datasets or study.datasets):
                    yield Key(name, dataset, seed)


def _seeds(study: Study, row: Row) -> list[int]:
    return study.seeds if row.seeds is None else row.seeds


def _add(study: Study, key: Key, overrides: Sequence[str], runs: dict[Key, Planned]) -> None:
    if key in runs:
        return
    row, dataset = study.rows[key.row], study.datasets[key.dataset]
    start = key._replace(row=row.start_from) if row.start_from else None
    if start:
        _add(study, start, overrides, runs)
    experiment = row.experiment.format(dataset=dataset.experiments or key.dataset)
    budget = _budget(experiment, study.budget)
    values = dataset.overrides | dataset.budgets.get(budget, {}) | row.overrides | row.budgets.get(budget, {})
    words = (f"budget={budget}", *(f"{name}={json.dumps(value)}" for name, value in values.items()), *overrides)
    config = _seeded(_resolved(experiment, words), key.seed)
    runs[key] = Planned(key, experiment, (*words, f"seed={key.seed}"), config, start)


@cache
def _budget(experiment: str, budget: str) -> str:
    """The budget that "auto" means here."""
    if budget != "auto":
        return budget
    taken: str = configuration.load(experiment, ["budget=auto"]).budget
    return taken


@cache
def _resolved(experiment: str, words: tuple[str, ...]) -> dict[str, Any]:
    """An experiment with PLACEHOLDER wherever its seed goes: checking takes long, and is the same for all seeds."""
    return plain(configuration.show(configuration.load(experiment, [*words, f"seed={PLACEHOLDER}"])))


def _seeded(node: Any, seed: int) -> Any:
    """A copy of a configuration, or of a part of it, with the seed in its places."""
    if isinstance(node, dict):
        return {key: _seeded(value, seed) for key, value in node.items()}
    if isinstance(node, list):
        return [_seeded(value, seed) for value in node]
    return seed if node == PLACEHOLDER else node


def _refuse_unknown_names(study: Study) -> None:
    if study.reference is not None:
        _refuse_strangers("reference", [study.reference], study.rows)
    for name, row in study.rows.items():
        if row.against is not None:
            _refuse_strangers(f"rows.{name}.against", [row.against], study.rows)
        if row.start_from is not None:
            _refuse_strangers(f"rows.{name}.start_from", [row.start_from], study.rows)
            if study.rows[row.start_from].start_from is not None:
                raise UserError(
                    f"rows.{name}.start_from: {row.start_from} itself starts from another row; name that one"
                )
        _refuse_strangers(f"rows.{name}.datasets", row.datasets or [], study.datasets)
        _refuse_strangers(f"rows.{name}.paper", list(row.paper), study.datasets)
        _refuse_strangers(f"rows.{name}.notes", row.notes, study.footnotes)
    for name, dataset in study.datasets.items():
        _refuse_strangers(f"datasets.{name}.notes", dataset.notes, study.footnotes)


def _refuse_strangers(where: str, names: Sequence[str], known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{where}: no '{name}'.{did_you_mean(name, known)} There are: {', '.join(known) or 'none'}")
