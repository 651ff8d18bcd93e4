"""Studies as their YAML files define them, and the runs they need: rows × data sets × seeds × folds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from omegaconf import MISSING, OmegaConf

from anomaly_lab.experiment import compose
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.record import check
from anomaly_lab.experiment.schema import did_you_mean, merged, to_object
from anomaly_lab.types import FolderName, Range, UserError

Metric = Literal[
    "auroc",
    "average_precision",
    "sensitivity_at_95_specificity",
    "map",
    "accuracy",
    "macro_f1",
    "unweighted_precision",
    "unweighted_recall",
    "unweighted_f1",
]
FOLDS = ("data.split.folds", "data.split.fold")  # settings that a study with folds makes
PLACEHOLDER = 2_147_480_611  # unlikely number that stands for the seed while an experiment is resolved


@dataclass
class DataSet:
    """A column of the study's table: a data set.

    Attributes:
        title: display name.
        experiments: replaces {dataset} in the rows' experiments; by default the column's key.
        overrides: settings for every experiment of the column, by dotted key.
        budgets: overrides for single budgets, by budget.
        folds: replaces the study's number of folds.
        notes: keys of the study's `footnotes`.
    """

    title: str = MISSING
    experiments: str | None = None
    folds: Annotated[int, Range("[0, 1000]")] | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Row:
    """A row of the study's table: a method, or a method with certain settings.

    Attributes:
        title: display name.
        experiment: name of the experiment; {dataset} is replaced by the data set.
        overrides: settings by dotted key; they take precedence over those of the data set.
        budgets: overrides for single budgets, by budget.
        start_from: row to start from (warm start): its finished run on the same data set and seed provides the first
            phase.
        seeds: replaces the study's seeds.
        datasets: data sets of this row; by default all of the study's.
        paper: the study's metric in the publication, by data set.
        paper_classes: average precision of each class in the publication, by data set and class.
        x: position on the study's curve.
        hidden: train the row, so that others can start from it, but do not show it.
        against: row to compare this one with, instead of the study's reference.
        notes: keys of the study's `footnotes`.
    """

    title: str = MISSING
    experiment: str = MISSING
    overrides: dict[str, Any] = field(default_factory=dict)
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    start_from: str | None = None
    seeds: list[int] | None = None
    datasets: list[str] | None = None
    paper: dict[str, float] = field(default_factory=dict)
    paper_classes: dict[str, dict[str, float]] = field(default_factory=dict)
    x: float | None = None
    hidden: bool = False
    against: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Study:
    """A study: many runs that answer one question.

    Attributes:
        name: name of the YAML file.
        title: of the page.
        question: what the study is to answer, in one or two sentences.
        source: name of the publication whose results are shown for comparison.
        budget: of every run, see `config.Experiment`; a study does not mix budgets.
        seeds: of every row without its own; a seed determines the split as well, so rows can be compared in pairs.
        folds: number of folds of a cross-validation: for each seed so many runs are trained, each of which tests
            another part of the patients; 0 for a single split.
        metric: figure of the main table: "auroc", "average_precision" or "sensitivity_at_95_specificity" of the anomaly
            scores; of runs with classes "map" (mean average precision), "accuracy" or "macro_f1"; or precision, recall
            or F1 as unweighted means over anomalous and normal, "unweighted_precision" and so on.
        datasets: the columns.
        rows: the methods, from top to bottom.
        reference: row that the others are compared with; by default the first.
        curve: meaning of the rows' `x`, the label of the curve's axis; None for no curve.
        footnotes: choices made where the publication leaves a question open, by key.
        advice: whether the page says in words which method to take.

    Examples:
        >>> rows = {"vae": Row("VAE", "vae_{dataset}"), "gan": Row("GANomaly", "ganomaly_{dataset}")}
        >>> study = Study("toy", "A toy study", budget="smoke", datasets={"headct": DataSet("Head CT")}, rows=rows)
        >>> [(str(run.key), run.experiment) for run in plan(study)]
        [('vae-headct-seed0', 'vae_headct'), ('gan-headct-seed0', 'ganomaly_headct')]
    """

    name: str = MISSING
    title: str = MISSING
    question: str = ""
    source: str = "Published"
    budget: str = "auto"
    seeds: list[int] = field(default_factory=lambda: [0])
    folds: Annotated[int, Range("[0, 1000]")] = 0
    metric: Metric = "auroc"
    datasets: dict[str, DataSet] = MISSING
    rows: dict[str, Row] = MISSING
    reference: str | None = None
    curve: str | None = None
    footnotes: dict[str, str] = field(default_factory=dict)
    advice: bool = False

    def folds_of(self, dataset: str) -> int:
        """Return the number of folds on a data set; 0 for a single split."""
        own = self.datasets[dataset].folds
        return self.folds if own is None else own


class Fold(NamedTuple):
    """Identifies a repeat of a cross-validation.

    Examples:
        >>> str(Fold(0, 2))
        '0, fold 2'
    """

    seed: int
    fold: int

    def __str__(self) -> str:
        return f"{self.seed}, fold {self.fold}"


Repeat = int | Fold  # a seed, or a fold of it


class Key(NamedTuple):
    """Identifies a run of a study; `fold` is None without cross-validation.

    Examples:
        >>> str(Key("ganomaly", "headct", 0)), str(Key("ganomaly", "headct", 0, fold=2))
        ('ganomaly-headct-seed0', 'ganomaly-headct-seed0-fold2')
    """

    row: str
    dataset: str
    seed: int
    fold: int | None = None

    @property
    def repeat(self) -> Repeat:
        """Which of the repeats of its row on its data set it is."""
        return self.seed if self.fold is None else Fold(self.seed, self.fold)

    def __str__(self) -> str:
        return f"{self.row}-{self.dataset}-seed{self.seed}" + ("" if self.fold is None else f"-fold{self.fold}")


@dataclass(frozen=True)
class Planned:
    """A run that a study needs.

    Attributes:
        key: identifies it in the study.
        experiment: name of its experiment.
        overrides: `key=value` words for the command line, including the budget and the seed.
        config: the resolved configuration, plain Python.
        start: the run it starts from (warm start), or None.
    """

    key: Key
    experiment: str
    overrides: tuple[str, ...]
    config: dict[str, Any]
    start: Key | None


def studies() -> list[str]:
    """Return the names of all studies.

    Examples:
        >>> "medical_images" in studies()
        True
    """
    return list(compose.studies())


def load(name: str) -> Study:
    """Load a study and check it.

    Args:
        name: of the study.

    Raises:
        UserError: there is no such study, or its file has an error; the message names the key.

    Examples:
        >>> "headct" in load("medical_images").datasets
        True
    """
    known = compose.studies()
    if name not in known:
        raise UserError(f"no study '{name}'.{did_you_mean(name, known)} There are: {', '.join(known) or 'none'}")
    path = known[name]
    content = compose.read(path)
    try:
        checked = merged(OmegaConf.structured(Study(name=name)), content)
        study = to_object(checked)
        check(asdict(study), Study)  # OmegaConf lets a section pass where an element of a list or mapping belongs
        _check_references(study)
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    assert isinstance(study, Study)
    return study


def on(study: Study, dataset: str) -> Study:
    """Return a study of one data set on another one.

    Args:
        study: the study.
        dataset: name of the other data set.

    Raises:
        UserError: there is no such data set, or the study has several.

    Examples:
        >>> on(load("which_detector"), "dicom").datasets["own"].experiments
        'dicom'
    """
    if len(study.datasets) != 1:
        raise UserError(f"data={dataset}: {study.name} has several data sets; restrict it with datasets=[…]")
    if dataset not in compose.datasets():
        raise UserError(f"data={dataset}: no such data set.{did_you_mean(dataset, compose.datasets())}")
    ((name, of),) = study.datasets.items()
    if (of.experiments or name) == dataset:
        return study
    rows = {key: replace(row, paper={}, paper_classes={}) for key, row in study.rows.items()}  # they are of the other
    own = of.title if of.experiments else dataset  # a title like "your pictures" fits any, that of a data set its own
    return replace(study, rows=rows, datasets={name: replace(of, title=own, experiments=dataset, notes=[])})


def narrowed(study: Study, rows: Sequence[str] = (), datasets: Sequence[str] = (), seeds: Sequence[int] = ()) -> Study:
    """Restrict a study to some rows, data sets and seeds.

    Rows that a kept row starts from are kept but hidden. Rows without any of the data sets are dropped unless they are
    named, and so are footnotes that are no longer used.

    Args:
        study: the study.
        rows, datasets, seeds: what to keep; empty for all.

    Raises:
        UserError: there is no such row or data set.

    Examples:
        >>> study = narrowed(load("medical_images"), datasets=["headct"], seeds=[0])
        >>> list(study.datasets), study.seeds
        (['headct'], [0])
    """
    _check_names("rows", rows, study.rows)
    _check_names("datasets", datasets, study.datasets)
    columns = {name: column for name, column in study.datasets.items() if not datasets or name in datasets}
    wanted = rows or [name for name, row in study.rows.items() if not {*(row.datasets or columns)}.isdisjoint(columns)]
    kept = {name: replace(row, hidden=row.hidden and not rows) for name, row in study.rows.items() if name in wanted}
    starts = {row.start_from for row in kept.values()} - {None, *kept}
    kept = {name: kept[name] if name in kept else replace(row, hidden=True) for name, row in study.rows.items()
            if name in kept or name in starts}  # fmt: skip
    if seeds:
        kept = {name: replace(row, seeds=[s for s in row.seeds or seeds if s in seeds]) for name, row in kept.items()}
    shown: list[Row | DataSet] = [row for row in kept.values() if not row.hidden]
    is_shown = study.reference in kept and not kept[study.reference].hidden
    reference = study.reference if is_shown else None
    used = {note for part in [*shown, *columns.values()] for note in part.notes}
    footnotes = {note: text for note, text in study.footnotes.items() if note in used}
    seeds = list(seeds or study.seeds)
    return replace(study, rows=kept, datasets=columns, seeds=seeds, reference=reference, footnotes=footnotes)


def plan(study: Study, overrides: Sequence[str] = ()) -> list[Planned]:
    """List the runs of a study; a run comes after the one it starts from.

    Args:
        study: the study.
        overrides: `key=value` words for all runs.

    Raises:
        UserError: an experiment does not exist, or does not accept one of its overrides.

    Examples:
        >>> study = Study("toy", "Toy", datasets={"headct": DataSet("Head CT")}, rows={"vae": Row("VAE", "vae_headct")})
        >>> (run,) = plan(study, ["budget=smoke"])
        >>> str(run.key), run.overrides[-2:]
        ('vae-headct-seed0', ('budget=smoke', 'seed=0'))
    """
    for word in overrides if any(map(study.folds_of, study.datasets)) else ():
        if word.partition("=")[0] in FOLDS:
            raise UserError(f"{word}: the study sets this for each run; change `folds` in its file")
    runs: dict[Key, Planned] = {}
    for key in _keys(study):
        _add(study, key, overrides, runs)
    return list(runs.values())


def plain(text: str) -> dict[str, Any]:
    """Parse a config.yaml to plain Python without validating it, which is a hundred times as fast.

    Examples:
        >>> plain("data: {batch_size: 8}")
        {'data': {'batch_size': 8}}
    """
    compose.refuse_bomb(text)
    content: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content


def _keys(study: Study) -> Iterator[Key]:
    """Yield the keys repeat by repeat, so that a study that is stopped early has complete tables for the first ones."""
    seeds = sorted({seed for row in study.rows.values() for seed in _seeds(study, row)})
    folds: dict[str, list[int | None]] = {name: [*range(study.folds_of(name))] or [None] for name in study.datasets}
    for seed in seeds:
        for place in range(max(map(len, folds.values()))):
            for dataset in study.datasets:
                for name, row in study.rows.items():
                    if seed in _seeds(study, row) and dataset in (row.datasets or study.datasets):
                        yield from (Key(name, dataset, seed, fold) for fold in folds[dataset][place : place + 1])


def _seeds(study: Study, row: Row) -> list[int]:
    return study.seeds if row.seeds is None else row.seeds


def _add(study: Study, key: Key, overrides: Sequence[str], runs: dict[Key, Planned]) -> None:
    if key in runs:
        return
    row, dataset = study.rows[key.row], study.datasets[key.dataset]
    start = key._replace(row=row.start_from) if row.start_from else None
    if start:
        _add(study, start, overrides, runs)
    experiment = row.experiment.replace("{dataset}", dataset.experiments or key.dataset)
    budget = _budget(experiment, study.budget)
    values = dataset.overrides | dataset.budgets.get(budget, {}) | row.overrides | row.budgets.get(budget, {})
    words = (f"budget={budget}", *(f"{name}={json.dumps(value)}" for name, value in values.items()), *overrides)
    repeat = [f"seed={key.seed}"]
    if key.fold is None:
        config = _seeded(_resolved(experiment, words), key.seed)
    else:
        words = (*words, f"{FOLDS[0]}={study.folds_of(key.dataset)}")
        config = _seeded(_resolved(experiment, (*words, f"{FOLDS[1]}=0")), key.seed)
        config["data"]["split"]["fold"] = key.fold
        repeat.insert(0, f"{FOLDS[1]}={key.fold}")
    runs[key] = Planned(key, experiment, (*words, *repeat), config, start)


def resolved_budget(study: Study) -> str:
    """Return a study's budget, "auto" resolved for this machine.

    Examples:
        >>> resolved_budget(Study("toy", "Toy", budget="smoke"))
        'smoke'
    """
    if study.budget != "auto":
        return study.budget
    row, dataset = next(iter(study.rows.values())), next(iter(study.datasets))
    return _budget(row.experiment.replace("{dataset}", study.datasets[dataset].experiments or dataset), study.budget)


@cache
def _budget(experiment: str, budget: str) -> str:
    """Return the budget, resolved for this machine if it is "auto"."""
    if budget != "auto":
        return budget
    resolved: str = configuration.load(experiment, ["budget=auto"]).budget
    return resolved


@cache
def _resolved(experiment: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Resolve an experiment with PLACEHOLDER as its seed: validation is slow and gives the same for all seeds."""
    return plain(configuration.show(configuration.load(experiment, [*words, f"seed={PLACEHOLDER}"])))


def _seeded(node: Any, seed: int) -> Any:
    """Copy a configuration, or part of one, with the placeholder replaced by the seed."""
    if isinstance(node, dict):
        return {key: _seeded(value, seed) for key, value in node.items()}
    if isinstance(node, list):
        return [_seeded(value, seed) for value in node]
    return seed if node == PLACEHOLDER else node


def _check_references(study: Study) -> None:
    """Check that all names of rows, data sets and footnotes that a study refers to exist; rows are also file names."""
    for part, names in (("rows", study.rows), ("datasets", study.datasets)):
        for name in names:
            if not FolderName().admits(name):
                raise UserError(f"{part}: {name!r} takes {FolderName()}")
    if study.advice and study.metric != "auroc":
        raise UserError(
            f"advice: which method to take is said by AUROC, and metric is {study.metric}; drop one of them"
        )
    if any(study.folds_of(name) == 1 for name in study.datasets):
        raise UserError("folds: 1 fold has nothing to train on; say 0 for a single split, or at least 2")
    _check_shown(study)
    for name, row in study.rows.items():
        _check_row(study, name, row)
    for name, dataset in study.datasets.items():
        _check_names(f"datasets.{name}.notes", dataset.notes, study.footnotes)


def _check_shown(study: Study) -> None:
    """Check that there is something to show, which a reader can tell apart, and something to compare it with."""
    shown = [name for name, row in study.rows.items() if not row.hidden]
    if not shown or not study.datasets:
        raise UserError(f"{study.name}: a study needs a data set, and a row that is not hidden")
    if study.reference is not None:
        _check_names("reference", [study.reference], study.rows)
        if study.reference not in shown:
            raise UserError(f"reference: {study.reference} is hidden, and rows are compared with what is shown")
    titles = Counter(row.title for row in study.rows.values() if not row.hidden)
    if repeated := [title for title, times in titles.items() if times > 1]:
        raise UserError(f"rows: two have the title {repeated[0]!r}, and tables and charts tell them by it; change one")


def _check_row(study: Study, name: str, row: Row) -> None:
    if row.against is not None:
        _check_names(f"rows.{name}.against", [row.against], study.rows)
    if row.start_from is not None:
        _check_names(f"rows.{name}.start_from", [row.start_from], study.rows)
        if study.rows[row.start_from].start_from is not None:
            raise UserError(
                f"rows.{name}.start_from: {row.start_from} itself starts from another row, "
                f"{study.rows[row.start_from].start_from}; name that one"
            )
    _check_names(f"rows.{name}.datasets", row.datasets or [], study.datasets)
    _check_names(f"rows.{name}.paper", list(row.paper), study.datasets)
    _check_names(f"rows.{name}.paper_classes", list(row.paper_classes), study.datasets)
    _check_names(f"rows.{name}.notes", row.notes, study.footnotes)


def _check_names(where: str, names: Sequence[str], known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{where}: no '{name}'.{did_you_mean(name, known)} There are: {', '.join(known) or 'none'}")
