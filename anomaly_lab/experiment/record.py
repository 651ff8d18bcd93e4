"""What stands in the JSON files of a run folder, and reading them: a file that says something else is refused.

The types below name what readers rely on; a record may say more, and a run that is not finished says less.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from anomaly_lab.experiment.json_types import check as check
from anomaly_lab.experiment.run_folder import in_current_words, read_json
from anomaly_lab.types import Range, UserError

NAMED = 5  # cases that are named
_NAMES = re.compile(r" \(.*\)(?=: )")  # in remarks of older versions
_COUNTS = re.compile(r"(?:^|, )(\d+ (?:added|removed|altered)) \(")  # in changes of older versions

Name = str | None
Number = float | None
Whole = Annotated[int, Range("[0, 1000000000000]")]


class Counts(TypedDict, total=False):
    """Numbers of pictures."""

    normal: Whole
    anomalous: Whole


class Code(TypedDict):
    """Fingerprints of the code that made a run."""

    training: str
    evaluation: str


class Pair(TypedDict):
    """Two pictures that are alike, with the splits they are in."""

    ids: list[str]
    splits: list[str]


class Alike(TypedDict):
    """A judged picture and the training picture that is most like it, with their splits."""

    ids: list[str]
    splits: list[str]
    likeness: Number


class Spread(TypedDict):
    """Likeness of pictures to the training pictures that are most like them."""

    count: Whole
    low: Number
    median: Number
    high: Number


class Apart(TypedDict):
    """Quartiles of the likeness of files so many places apart in the listing."""

    apart: Whole
    low: float
    median: float
    high: float


class Neighbours(TypedDict):
    """Likeness of normals that follow each other in the listing."""

    pairs: Whole
    alike: Whole
    threshold: float
    p: float
    together: bool
    judged: Whole
    leaking: Whole
    curve: list[Apart]


class Told(TypedDict):
    """AUROC of a number alone, with its interval; None where there are too few patients for one."""

    value: Number
    low: Number
    high: Number


class Likeness(TypedDict):
    """Likeness of judged pictures to those of the training, and of neighbours in the listing."""

    nearest: dict[str, Spread]
    auroc: Told | None
    worst: list[Alike]
    neighbours: Neighbours | None


class Groups(TypedDict):
    """Patients that were joined because their pictures are alike."""

    rule: str
    thresholds: dict[str, float]
    groups: list[list[str]]
    patients: Whole


class Listed(TypedDict):
    """Cases in no split: their number, and the ids of the first of them."""

    count: Whole
    ids: list[str]


class Audit(TypedDict, total=False):
    """Findings of the leakage audit."""

    likeness: Likeness | None

    identical: list[Pair]
    near_identical: list[Pair]
    shared_patients: list[Any]


class DataFacts(TypedDict, total=False):
    """The data set of a run."""

    name: str
    source: Literal["real", "twin"]
    root: str
    fingerprint: str
    bits: Literal[8, 16]
    counts: dict[str, Counts]
    patients: dict[str, Whole]
    limits: dict[str, Number]
    contamination: Number
    census: dict[str, Whole]
    official: dict[str, Whole]
    skipped: list[dict[str, str]]
    in_no_split: Listed
    remarks: list[str]
    concerned: dict[str, list[str]]
    groups: Groups
    audit: Audit


class DetectorFacts(TypedDict, total=False):
    """The detector of a run."""

    parameters: dict[str, Whole]
    phases: dict[str, Whole]
    caveats: list[str]
    begun_with: dict[str, Any]


DetectorFacts.__annotations__["class"] = str  # a keyword cannot be a field


class Choice(TypedDict, total=False):
    """The checkpoint whose weights are a run's result."""

    rule: str
    iteration: Whole
    file: str
    auroc: Number
    last_auroc: Number
    loss: Number
    last_loss: Number
    instead_of: dict[str, Any]


class Started(TypedDict, total=False):
    """The run that a run started from."""

    run: str
    id: Name
    checkpoint: str
    phase: str
    iterations: Whole
    seconds: Number
    settings: str
    caveats: list[str]


class Accepted(TypedDict):
    """A change of the data that the user accepted; `changes` names no case."""

    at: str
    verb: str
    changes: str


class Change(Accepted, total=False):
    """What else is recorded of it: `named` is the same with names of cases."""

    named: str


class Provenance(TypedDict, total=False):
    """provenance.json."""

    id: Name
    run: str
    started: str
    finished: Name
    command: str
    experiment: str
    seed: Whole
    budget: str
    source: Literal["real", "twin"]
    precision: str
    threads: Annotated[int, Range("[1, 4096]")]
    git: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, Name]
    code: Code | str
    detector: DetectorFacts
    data: DataFacts
    seconds: dict[str, float]
    scoring_seconds: Number
    peak_gb: dict[str, Number]
    health: dict[str, float | bool | str | None]
    checkpoint: Choice
    started_from: Started
    resumed: list[dict[str, Any]]
    evaluated: list[dict[str, Any]]
    accepted_changes: list[Change]
    wandb: dict[str, str]
    mlflow: dict[str, str]


class Figure(TypedDict, total=False):
    """A number with its confidence interval; None where it is undefined."""

    value: Number
    low: Number
    high: Number
    p: Number


Figures = dict[str, Figure | Number]


class Ends(TypedDict):
    """An interval without a value inside; None where nothing is known."""

    low: Number
    high: Number


class Threshold(TypedDict, total=False):
    """The decision threshold."""

    rule: str
    uses_test: bool
    purpose: Name
    value: Number
    quantile: Number
    method: Name
    num_normals: Whole
    num_patients: Whole
    num_cross_fitted: Whole
    specificity: Ends
    probabilities: bool
    warning: Name


class InUse(TypedDict, total=False):
    """What a threshold would do at the prevalence and number of scans of a place."""

    ppv: Figure
    npv: Figure
    alarms: Figure
    found: Figure
    missed: Figure
    false_alarms: Figure


class Decisions(TypedDict, total=False):
    """What the detector and each baseline would do there."""

    prevalence: float
    scans_per_day: Whole
    detector: InUse
    baselines: dict[str, InUse]


class Comparison(TypedDict, total=False):
    """The detector against the best baseline, and against each, with p-values after Holm's correction."""

    best: str
    difference: Figure
    beaten: bool
    each: dict[str, Figure]
    sentence: str


class Unit(TypedDict, total=False):
    """What was evaluated, patches or cases, and how patches became cases."""

    scored: str
    rule: Literal["none", "max", "mean", "top_k"]
    top_k: Annotated[int, Range("[1, 1000000]")]


class BoxesFound(TypedDict, total=False):
    """Boxes around what maps show against those of known lesions."""

    average_precision: Number
    pointing: Number
    known: Whole


class Pixels(TypedDict, total=False):
    """Localisation of known lesions."""

    num_masks: Whole
    patients: Whole
    remark: Name
    auroc: Figure | Number
    pro: Figure | Number
    baselines: dict[str, Figures]
    versus_baselines: Comparison
    boxes: BoxesFound


class Components(TypedDict, total=False):
    """The terms of the detector's score, each by itself."""

    auroc: dict[str, Figure]
    correlation: dict[str, dict[str, Number]]


class Bootstrap(TypedDict, total=False):
    """How the confidence intervals were computed."""

    replicates: Whole
    level: Annotated[float, Range("(0, 1)")]


class Intervals(TypedDict, total=False):
    """The patients that intervals rest on, and a sentence if they are too few for any."""

    patients: Counts
    remark: Name


class ClassCounts(TypedDict, total=False):
    """Numbers of cases by what is known of a class."""

    yes: Whole
    no: Whole
    unknown: Whole


class Bin(TypedDict):
    """Claims of similar confidence."""

    claims: Whole
    confidence: float
    share: float


class Calibrated(TypedDict, total=False):
    """How well class probabilities are calibrated."""

    error: Number
    brier: Number
    log_loss: Number
    curve: list[Bin]


class Calibration(TypedDict, total=False):
    """Calibration of the test cases before and after the temperature that validation cases set."""

    temperature: float
    cases: Whole
    before: Calibrated
    after: Calibrated


class Majority(TypedDict):
    """The trivial rule of always naming the largest class of the training."""

    accuracy: Number


Majority.__annotations__["class"] = str


class OfClass(TypedDict, total=False):
    """Figures of one class."""

    average_precision: Figure
    interpolated_average_precision: Figure
    auroc: Figure
    precision: Figure
    recall: Figure
    f1: Figure
    prevalence: Number
    threshold: Number


class AgainstNormal(TypedDict, total=False):
    """Unweighted means over anomalous and normal at a threshold."""

    threshold: Number
    precision: Figure
    recall: Figure
    f1: Figure


class Classes(TypedDict, total=False):
    """The classes of a run with labels."""

    task: Literal["multiclass", "multilabel"]
    names: list[str]
    counts: dict[str, dict[str, ClassCounts]]
    training: dict[str, Whole]
    remarks: list[str]
    each: dict[str, OfClass]
    mean_average_precision: Figure
    mean_interpolated_average_precision: Figure
    mean_auroc: Figure
    macro_precision: Figure
    macro_recall: Figure
    macro_f1: Figure
    brier: Figure
    accuracy: Figure
    majority: Majority | None
    confusion: list[list[Whole]] | None
    anomalous: dict[str, AgainstNormal]
    calibration: Calibration


class Shortcut(TypedDict, total=False):
    """A rule of one number a case, and how well it tells the classes apart."""

    name: str
    title: str
    kind: Literal["greys", "places", "textures", "files", "names"]
    text: bool
    auroc: Figure
    told: Number
    p: Number
    chance: Number
    alarm: bool
    follows: Number


class Stratum(TypedDict, total=False):
    """The detector among cases that are alike by a rule; `pairs` is their share of all pairs."""

    name: str
    title: str
    auroc: Figure
    pairs: Number


class Shortcuts(TypedDict, total=False):
    """The shortcut audit of the test split."""

    cases: Counts
    of: Counts
    patients: Whole
    normal_patients: Whole
    unit: Literal["image", "patch", "case"]
    exchanges: Whole
    level: Annotated[float, Range("(0, 1)")]
    rules: list[Shortcut]
    constant: list[str]
    score: Number
    strata: list[Stratum]


class Planted(TypedDict, total=False):
    """What a method finds of lesions planted on validation normals, see `evaluation.planted`."""

    auroc: Number
    lift: Number
    kinds: dict[str, Number]


class Metrics(TypedDict, total=False):
    """metrics.json."""

    counts: dict[str, Counts]
    threshold: Threshold
    detector: Figures
    baselines: dict[str, Figures | None]
    baseline_notes: list[str]
    trivial: dict[str, dict[str, Number]] | None
    versus_baselines: Comparison | None
    components: Components | None
    oracle: dict[str, dict[str, Number]] | None
    bootstrap: Bootstrap
    intervals: Intervals
    unit: Unit
    pixels: Pixels | None
    decisions: Decisions | None
    classes: Classes
    shortcuts: Shortcuts | None
    planted: dict[str, Planted] | None


def read_provenance(run: Path, needs: Collection[str] = ()) -> dict[str, Any]:
    """Read provenance.json of a run folder; empty where there is none.

    Args:
        run: the run folder.
        needs: dotted keys that must be there.

    Raises:
        UserError: the file is damaged, or lacks one of `needs`.

    Examples:
        >>> read_provenance(Path("no such run"))
        {}
    """
    path = run / "provenance.json"
    return _read(path, read_json(path), Provenance, needs, "restore it from a copy of the run folder")


def read_metrics(run: Path, needs: Collection[str] = ()) -> dict[str, Any]:
    """Read metrics.json of a run folder in current words; empty where there is none.

    Args:
        run: the run folder.
        needs: dotted keys that must be there, unless there is no file.

    Raises:
        UserError: the file is damaged, or lacks one of `needs`.

    Examples:
        >>> read_metrics(Path("no such run"), needs=["unit.rule"])
        {}
    """
    path, remedy = run / "metrics.json", f"write it again: make evaluate RUN={run}"
    content = in_current_words(read_json(path, remedy))
    return _read(path, content, Metrics, needs if content else (), remedy)


def hidden_share(data: Mapping[str, Any]) -> float:
    """Return the share of anomalies among the training images, where some were hidden there to see what that does.

    Args:
        data: facts of a data set; without counts, what was asked for is returned.

    Examples:
        >>> hidden_share({"contamination": 0.1, "counts": {"train": {"normal": 91, "anomalous": 9}}})
        0.09
    """
    train = (data.get("counts") or {}).get("train") or {}
    total = sum(train.values())
    return train.get("anomalous", 0) / total if total else float(data["contamination"])


def remarks_of(data: Mapping[str, Any], named: bool = False) -> list[str]:
    """Return what a run, or a data sheet, remarks on its data.

    Args:
        data: facts of the data.
        named: whether to name the cases that a remark is about: on this machine and in the run folder alone.

    Examples:
        >>> data = {"remarks": ["2 scans not cropped: look."], "concerned": {"2 scans not cropped: look.": ["a", "b"]}}
        >>> remarks_of(data), remarks_of(data, named=True)
        (['2 scans not cropped: look.'], ['2 scans not cropped: look. They are a, b.'])
        >>> remarks_of({"remarks": ["2 scans not cropped (a, b): look."]})  # of an older version
        ['2 scans not cropped: look.']
    """
    remarks, concerned = data.get("remarks") or [], data.get("concerned")
    if concerned is None:
        return list(remarks) if named else [_NAMES.sub("", remark) for remark in remarks]
    if not named:
        return list(remarks)
    return [_with_names(remark, concerned.get(remark) or []) for remark in remarks]


def _with_names(remark: str, cases: list[str]) -> str:
    some = ", ".join(cases[:NAMED]) + ", …" * (len(cases) > NAMED)
    return f"{remark} {'They are' if len(cases) > 1 else 'It is'} {some}." if cases else remark


def changes_of(change: Mapping[str, Any], named: bool = False) -> str:
    """Return how the data had changed when somebody accepted it.

    Args:
        change: an element of `accepted_changes`.
        named: as in `remarks_of`.

    Examples:
        >>> change = {"changes": "2 added (a (2), 3 b.png, …), 1 removed (b.png)"}  # of an older version
        >>> changes_of(change), changes_of(change, named=True)
        ('2 added, 1 removed', '2 added (a (2), 3 b.png, …), 1 removed (b.png)')
    """
    text = str(change["changes"])
    if named:
        return str(change.get("named") or text)
    return ", ".join(_COUNTS.findall(text)) or text


def _read(path: Path, content: dict[str, Any], kind: Any, needs: Collection[str], remedy: str) -> dict[str, Any]:
    try:
        check(content, kind)
        for key in needs:
            within: Any = content
            for part in key.split("."):
                if not isinstance(within, Mapping) or part not in within:
                    raise ValueError(f"it lacks {key}")
                within = within[part]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from error
    return content
