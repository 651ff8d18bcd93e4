"""Compare runs: repeats of one thing by their mean, two runs on the cases that both judged, runs by their pictures."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from anomaly_lab.dashboard.index import Index
from anomaly_lab.dashboard.runs import Row, repeated
from anomaly_lab.metrics import joint
from anomaly_lab.metrics.joint import Sample
from anomaly_lab.studies.intervals import over_runs
from anomaly_lab.studies.page.gallery import Gallery, of_runs
from anomaly_lab.studies.results import Result, within_split
from anomaly_lab.types import UserError

MOST = 12  # runs that are compared at once
TOLD = 4  # settings that tell two groups apart, at most
Progress = Callable[[int, int], object]


class Group(NamedTuple):
    """Runs that differ in seed and fold alone.

    Attributes:
        id: as in `Row.group`.
        differs: settings or recorded facts in which it differs from other groups of its experiment, budget and data.
        repeats: number of finished runs with different seeds or folds.
        auroc, low, high: their mean with its interval for new patients and new trainings.
        gain, gain_low, gain_high, best: the same of the difference from the baseline that is best on average.
        why: what is missing, in words.
    """

    id: str
    differs: str
    repeats: int
    auroc: float | None = None
    low: float | None = None
    high: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    best: str | None = None
    why: str | None = None


class Test(NamedTuple):
    """Two runs on the test cases that both judged, by DeLong's test; a positive difference favours `a`."""

    a: str
    b: str
    cases: int
    auroc_a: float | None
    auroc_b: float | None
    low: float | None
    high: float | None
    p: float | None


def groups(index: Index, progress: Progress = lambda done, of: None) -> list[Group]:
    """Return the groups of an index that have a finished run.

    Args:
        index: the index, up to date.
        progress: is told how many groups are done.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     groups(Index(Path(folder)))
        []
    """
    members: dict[str, list[Row]] = defaultdict(list)
    for row in index.rows.values():
        if row.state == "finished" and row.group and row.auroc is not None:
            members[row.group].append(row)
    configs = index.configs()
    differs = _differences(
        {group: (of_group[0], configs.get(of_group[0].path, {})) for group, of_group in members.items()}
    )
    found = []
    for number, (group, rows) in enumerate(members.items(), 1):
        paths = _repeats(rows, configs)
        estimate = index.remembered("group", paths, partial(_estimate, index, paths))
        if _is_whole(estimate, len(Group._fields) - 3):
            found.append(Group(group, differs[group], len(paths), *estimate))
        progress(number, len(members))
    return found


def _repeats(rows: Sequence[Row], configs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return of each seed and fold the newest run."""
    newest: dict[tuple[object, str], Row] = {}
    for row in sorted(rows, key=lambda row: (row.started or "", row.path)):
        newest[row.seed, configs.get(row.path, {}).get("data.split.fold", "")] = row
    return sorted(row.path for row in newest.values())


def _estimate(index: Index, paths: Sequence[str]) -> list[Any]:
    """Return what a Group says from `auroc` on."""
    rows = [index.rows[path] for path in paths]
    if len(paths) == 1:
        (row,) = rows
        return [row.auroc, row.low, row.high, row.gain, row.gain_low, row.gain_high, row.best, None]
    try:
        results = [Result.read(index.place / path) for path in paths]
        mean = over_runs(results, ["auroc"])["auroc"]
        gain, best = _gain(results)
    except UserError as error:
        known = [row.auroc for row in rows if row.auroc is not None]
        why = " ".join(str(error).replace(f"{index.place}/", "").split())[:300]
        return [float(np.mean(known)), None, None, None, None, None, None, why]
    return [*map(_known, (mean.value, mean.low, mean.high, *gain)), best, joint.too_few(*mean.patients)]


def _gain(results: Sequence[Result]) -> tuple[tuple[float, float, float], str | None]:
    names = set.intersection(*({*result.baselines} for result in results))
    against = {
        name: joint.auroc_difference([
            Sample(run.label, run.score, run.patient, run.baselines[name]) for run in results
        ])
        for name in sorted(names)
    }  # fmt: skip
    known = {name: found for name, found in against.items() if math.isfinite(found.value)}
    if not known:
        return (math.nan, math.nan, math.nan), None
    best = min(known, key=lambda name: known[name].value)
    return (known[best].value, known[best].low, known[best].high), best


def _differences(groups: Mapping[str, tuple[Row, Mapping[str, str]]]) -> dict[str, str]:
    """Return for each group by what it differs from others of the same experiment, budget and data."""
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for group, (row, _) in groups.items():
        alike[row.experiment, row.budget, row.data, row.source].append(group)
    found = {}
    for same in alike.values():
        values = {group: repeated(groups[group][1]) | _folder(groups[group][1]) for group in same}
        keys = [] if len(same) == 1 else sorted({key for of_group in values.values() for key in of_group})
        telling = [key for key in keys if len({of_group.get(key) for of_group in values.values()}) > 1]
        for group in same:
            said = [f"{key.rpartition('.')[2]}={values[group].get(key, '–')[:40]}" for key in telling[:TOLD]]
            more = [f"{len(telling) - TOLD} more"] if len(telling) > TOLD else []
            found[group] = ", ".join([*said, *more])
        for text, named in Counter(found[group] for group in same).items():
            for number, group in enumerate([group for group in same if found[group] == text], 1):
                if named > 1:  # what differs is not told, such as the folders of two files of one name
                    found[group] = f"{text} ({number})".lstrip()
    return found


def _folder(config: Mapping[str, str]) -> dict[str, str]:
    return {key: name for key, name in config.items() if key == "data.root"}


def tests(index: Index, paths: Sequence[str]) -> list[Test]:
    """Test every two of the runs that judged cases in common, in the given order.

    Args:
        index: the index, up to date.
        paths: of the runs.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tests(Index(Path(folder)), ["a"])
        []
    """
    read: dict[str, Result | None] = {}

    def result(path: str) -> Result | None:
        if path not in read:
            read[path] = _result(index, path)
        return read[path]

    def compared(a: str, b: str) -> list[Any]:
        one, other = result(a), result(b)
        if one is None or other is None:
            return [0, None, None, None, None, None]
        cases, test = within_split(one, other)
        return [cases, *map(_known, test)]

    found = []
    for a, b in combinations(paths, 2):
        figures = index.remembered("test", [a, b], partial(compared, a, b))
        if _is_whole(figures, len(Test._fields) - 2) and figures[0]:
            found.append(Test(a, b, *figures))
    return found


def galleries(index: Index, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pictures of runs, those of one data set together, for the cases that most of them stored.

    Args:
        index: the index, up to date.
        paths: of the runs.

    Returns:
        For each data set `cases`: id, anomalous, image, outline and size; and `strips`: by path `samples`, and `parts`.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     galleries(Index(Path(folder)), [])
        []
    """
    alike: dict[tuple[object, ...], dict[str, tuple[int, Result]]] = defaultdict(dict)
    for path in paths:
        if result := _result(index, path):
            row = index.rows[path]
            place = (result.facts.get("data") or {}).get("root") if row.source == "real" else None
            alike[row.data, row.source, place][path] = (row.seed or 0, result)
    return [_plain(found) for runs in alike.values() if (found := of_runs(runs)).cases]


def _plain(gallery: Gallery) -> dict[str, Any]:
    cases = [
        {"id": case.id, "anomalous": case.anomalous, "image": case.image, "outline": case.outline,
         "size": case.pixels.shape[-2:]}
        for case in gallery.cases
    ]  # fmt: skip
    return {"cases": cases, "strips": {of.title: {"samples": of.samples, "parts": of.parts} for of in gallery.strips}}


def _result(index: Index, path: str) -> Result | None:
    row = index.rows.get(path)
    if row is None or row.state == "unreadable":
        return None
    try:
        return Result.read(index.place / path)
    except UserError:
        return None


def _is_whole(values: object, length: int) -> bool:
    """Whether an index, which may be damaged, remembers as many values as there are."""
    return isinstance(values, list) and len(values) == length


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
