"""Collect what the shortcut audit asks of a data set: pixels as detectors see them, facts of files, names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers import pictures
from anomaly_lab.data.readers.header_facts import file_facts
from anomaly_lab.evaluation.protocol import without_nan
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.evaluation.shortcuts import files, greys, names, places, textures
from anomaly_lab.evaluation.shortcuts.audit import Column, audit, is_enough, rules_of, title_of
from anomaly_lab.evaluation.shortcuts.names import Names
from anomaly_lab.evaluation.shortcuts.view import View
from anomaly_lab.types import Case, UserError

MOST_CASES = 1000  # of a class; of more, these are drawn
MOST_PIXELS = 2**27  # of the cases of a class together, but at least a tenth of MOST_CASES
MOST_PATCHES = 16  # of a case that is judged as a whole, evenly spread
READ = 32  # rows that are read at once
SEEN = {"greys": greys, "places": places, "textures": textures}  # of one picture each

Rows = NDArray[np.int64]


def audit_of_data(data: PatchDataModule, split: NDArray[np.str_]) -> dict[str, Any] | None:
    """Audit all rows of a data set that are in a split, or all if it could not be split; None if they are too few.

    Args:
        data: the data set, set up.
        split: of every row of the store, [N].

    Examples:
        >>> audit_of_data(data, splits_of_rows(data))["rules"][0]["title"]  # doctest: +SKIP
        'width'
    """
    rows = np.flatnonzero(((split != "") | bool(data.unsplit)) & ~data.store.index.has_role("random"))
    labels = data.store.labels[rows]
    kept, of = _drawn(data, np.arange(len(rows)), labels)
    patient = np.array(data.store.index.columns["patient"])[rows[kept]].tolist()
    return _audited(data, _Units(rows[kept], np.arange(len(kept)), labels[kept], patient, of, _unit(data)))


def audit_of_run(data: PatchDataModule, scores: Scores, rows: Rows, by_case: bool) -> dict[str, Any] | None:
    """Audit the test split of a run, and what its detector's scores owe to the rules; None if the cases are too few.

    Args:
        data: the data set, set up.
        scores: of patches or cases.
        rows: all rows that were scored; those of a case that is judged as a whole are averaged.
        by_case: whether `scores` are of cases.

    Examples:
        >>> audit_of_run(data, scores, rows, by_case=False)["strata"][0]["auroc"]["value"]  # doctest: +SKIP
        0.84
    """
    test = np.flatnonzero(scores.of("test"))
    number = {scores.id[i]: place for place, i in enumerate(test.tolist())}
    of_row = data.store.index.columns["case" if by_case else "id"]
    rows = np.array([row for row in rows.tolist() if of_row[row] in number], np.int64)
    unit = np.array([number[of_row[row]] for row in rows.tolist()], np.int64)
    kept, of = _drawn(data, unit, scores.label[test])
    test = test[np.unique(unit[kept])]
    unit = np.unique(unit[kept], return_inverse=True)[1]
    patient = [scores.patient[i] for i in test.tolist()]
    units = _Units(rows[kept], unit, scores.label[test], patient, of, "case" if by_case else _unit(data))
    return _audited(data, units, scores.score[test])


class _Units(NamedTuple):
    """What is audited: M cases, or patches.

    Attributes:
        rows: [n], rows of the store.
        unit: [n], which of the M each row belongs to.
        label: [M], 0 normal, 1 anomalous.
        patient: of each of the M.
        of: number of each class that these were drawn from.
        name: "image", "patch" or "case".
    """

    rows: Rows
    unit: NDArray[np.intp]
    label: NDArray[np.int64]
    patient: Sequence[str]
    of: dict[str, int]
    name: str


def _audited(data: PatchDataModule, units: _Units, score: NDArray[np.float64] | None = None) -> dict[str, Any] | None:
    if not is_enough(units.label, units.patient):
        return None
    found = audit(units.label, units.patient, _of_pixels(data, units) | _of_files(data, units), score)
    content: dict[str, Any] = without_nan(found | {"of": units.of, "unit": units.name})
    lists = {key: [without_nan(entry) for entry in found[key]] for key in ("rules", "strata") if key in found}
    return content | lists


def _unit(data: PatchDataModule) -> str:
    """What a row of the store is."""
    return "patch" if data.patch_sampling or len(data.store.labels) > len(data.store_plan.cases) else "image"


def _drawn(data: PatchDataModule, unit: NDArray[np.int64], label: NDArray[np.int64]) -> tuple[Rows, dict[str, int]]:
    """Choose at most so many units (rows, or cases) of each class, and of each its rows; and count what there is.

    Args:
        data: the data set.
        unit: [n], which unit each row is of.
        label: [m], of the units.

    Returns:
        Positions in `unit`, ascending; and the number of units of each class.
    """
    room = MOST_PIXELS // max(1, int(np.prod(data.store.images.shape[1:])))
    most = int(np.clip(room, MOST_CASES // 10, MOST_CASES))
    random = np.random.default_rng(0)
    members = [np.flatnonzero(label == value) for value in (0, 1)]
    units = np.concatenate([random.permutation(own)[:most] for own in members])
    places = np.flatnonzero(np.isin(unit, units))
    if len(unit) > len(label):  # several patches of a case
        order = places[np.argsort(unit[places], kind="stable")]
        _, begin, count = np.unique(unit[order], return_index=True, return_counts=True)
        spread = [
            first + np.unique(np.linspace(0, n - 1, min(n, MOST_PATCHES)).astype(np.int64))
            for first, n in zip(begin.tolist(), count.tolist(), strict=True)
        ]
        places = np.sort(order[np.concatenate(spread)]) if spread else places
    return places, {"normal": len(members[0]), "anomalous": len(members[1])}


def _of_pixels(data: PatchDataModule, units: _Units) -> dict[str, Column]:
    """Apply the rules on pixels to rows and average them over the rows of a unit."""
    rows, unit = units.rows, units.unit
    rules = {(kind, name): rule for kind, module in SEEN.items() for name, rule in rules_of(module).items()}
    values = np.empty((len(rows), len(rules)))
    with Meter("looking for shortcuts", "image") as meter:
        for part in np.array_split(np.arange(len(rows)), len(rows) // READ + 1):
            for place, image in zip(part.tolist(), data.store.images[rows[part]], strict=True):
                view = View(image)
                values[place] = [np.nan if (said := rule(view)) is None else said for rule in rules.values()]
                meter.show(place + 1, len(rows))
    times = np.bincount(unit)
    means = (np.bincount(unit, column) / times for column in values.T)
    return {
        f"{kind}.{name}": Column(title_of(rule), kind, mean)
        for ((kind, name), rule), mean in zip(rules.items(), means, strict=True)
    }


def _of_files(data: PatchDataModule, units: _Units) -> dict[str, Column]:
    """Apply the rules on files and names to the units; what a file says that holds several cases is left out."""
    first = units.rows[np.unique(units.unit, return_index=True)[1]].tolist()
    of_row, file = data.store.index.columns["case"], data.store.index.columns["file"]
    of_unit = [of_row[row] for row in first]
    facts = _facts(data, set(of_unit))
    columns = {
        f"files.{name}": Column(title_of(rule), "files", _numbers([rule(facts[own]) for own in of_unit]))
        for name, rule in rules_of(files).items()
    }
    for field in sorted({field for own in facts.values() for field in own["header"]}):
        said = [facts[own]["header"].get(field) for own in of_unit]
        title = "bytes" if field == "bytes" else f"header: {field}"
        columns |= _column(f"files.header.{field}", title, said)
    written = _numbers([facts[own].get("written") for own in of_unit])
    alone = ["written" in facts[own] for own in of_unit]
    listed = [file[row].rsplit("/", 1)[-1] if own else "" for row, own in zip(first, alone, strict=True)]
    known = Names(listed, units.patient, written)
    return columns | {
        f"names.{name}": Column(title_of(rule), "names", rule(known)) for name, rule in rules_of(names).items()
    }


def _column(name: str, title: str, said: Sequence[Any]) -> dict[str, Column]:
    """Return a field of headers as a rule; one that some headers lack is one more, of who has it."""
    if any(isinstance(value, str) for value in said):
        return {name: Column(title, "files", np.array(["none" if value is None else str(value) for value in said]))}
    has = {name: Column(title, "files", _numbers(said))}
    if any(value is None for value in said):
        present = np.array([float(value is not None) for value in said])
        has[f"{name}?"] = Column(f"{title}, if any", "files", present)
    return has


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else float(value) for value in values])


def _facts(data: PatchDataModule, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Return the facts of scans: from the store, and of the files where an older store, or none, lacks them."""
    known: Mapping[str, dict[str, Any]] = {
        fact["case"]: fact for fact in data.store.scans() if fact["case"] in wanted and "skipped" not in fact
    }
    times = Counter(case.image for case in data.store_plan.cases)
    found = {}
    for case in data.store_plan.cases:
        if case.id in wanted:
            found[case.id] = _complete(known.get(case.id, {}), case, times[case.image] > 1)
    return found


def _complete(known: Mapping[str, Any], case: Case, shared: bool) -> dict[str, Any]:
    fact = dict(known)
    if shared:  # such as the digits of MNIST: the file's bytes are not theirs
        return fact | {"header": {}}
    if "header" not in fact:
        fact["header"] = file_facts((case.image, *case.slices))
    if "size" not in fact and case.image.suffix.lower() in pictures.SUFFIXES:
        with suppress(UserError):
            fact["size"] = case.box[2:] if case.box else pictures.picture_size(case.image)
    with suppress(OSError):
        fact["written"] = case.image.stat().st_mtime
    return fact
