"""Inspect a data set before training: write the data sheet and a manifest of all rows of the store."""

import hashlib
import io
import os
import re
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.splitting.rows import whole
from anomaly_lab.data.splitting.splits import SPLITS
from anomaly_lab.data.splitting.streams import stream
from anomaly_lab.data.store.store import Store
from anomaly_lab.experiment import run_folder
from anomaly_lab.experiment.tables import csv_lines
from anomaly_lab.pipeline.alike import sheet
from anomaly_lab.pipeline.console import say
from anomaly_lab.pipeline.shortcuts import audit_of_data
from anomaly_lab.reports import images, shortcuts
from anomaly_lab.reports.datasheet import Count, Exhibit, Sheet, write_datasheet
from anomaly_lab.reports.scan_summary import ScanSummary
from anomaly_lab.types import UserError

SHEET = "datasheet.html"
GALLERY_PATCHES = 12  # patches shown of each class
MAX_CLASSES = 24  # classes shown
MANIFEST = ("id", "case", "patient", "label", "class_name", "split", "location", "role", "file")  # and class targets
SHARED = (
    "name",
    "source",
    "census",
    "official",
    "split_rule",
    "unsplit",
    "limits",
    "skipped",
    "left_out",
    "remarks",
    "concerned",
    "audit",
    "classes",
    "in_no_split",
    "groups",
)  # facts with a place of their own on the data sheet
OTHER = (
    "root",
    "fingerprint",
    "store",
    "counts",
    "patients",
    "contamination",
)  # facts that are shown in another form or not at all

Names = NDArray[np.str_]


def place_of(base: Path, data: PatchDataModule) -> Path:
    """Return the folder of a data set's sheet: `data`, or `data-<name>` where another folder of files has its sheet.

    Args:
        base: the folder of the data set's runs.
        data: the data set.

    Examples:
        >>> place_of(Path("runs/folder"), data)  # doctest: +SKIP
        PosixPath('runs/folder/data-second_hospital')
    """
    mark = _mark(data)
    others = (f"data-{data.folder.name}{'' if number == 1 else f'-{number}'}" for number in count(1))
    return next(folder for folder in map(base.joinpath, chain(["data"], others)) if _known(folder) in (None, mark))


def _mark(data: PatchDataModule) -> str:
    """Return a comment that tells the files of one folder from those of another, and does not tell where they lie."""
    return f"<!-- of {hashlib.sha256(os.fsencode(data.folder.resolve())).hexdigest()[:16]} -->"


def _known(folder: Path) -> str | None:
    """Return the mark of the sheet in a folder; None without one."""
    try:
        with (folder / SHEET).open("rb") as file:
            file.seek(-min(100, os.fstat(file.fileno()).st_size), os.SEEK_END)
            found = re.search(r"<!-- of [0-9a-f]{16} -->", file.read().decode(errors="replace"))
    except OSError:
        return None
    return found[0] if found else None


def inspect(folder: Path, experiment: str, data: PatchDataModule, facts: dict[str, Any]) -> Path:
    """Write datasheet.html and manifest.csv of a data set.

    Args:
        folder: the folder for both; created if necessary.
        experiment: name of the experiment or data set.
        data: the data set, set up.
        facts: what `data.facts()` returns.

    Returns:
        The data sheet.

    Raises:
        UserError: the folder cannot be created.

    Examples:
        >>> inspect(Path("runs/headct/data"), "headct", data, data.facts())  # doctest: +SKIP
        PosixPath('runs/headct/data/datasheet.html')
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}; set runs=<folder>") from error
    split = splits_of_rows(data)
    run_folder.write_atomic(folder / "manifest.csv", _manifest(data, split))
    content = collect(experiment, data, facts, split)
    for notice in shortcuts.banners(content.shortcuts):
        say(f"{notice.title}: {notice.text}")
    page = write_datasheet(folder / SHEET, content)
    with page.open("a", encoding="utf-8") as file:
        file.write(f"{_mark(data)}\n")
    return page


def splits_of_rows(data: PatchDataModule) -> Names:
    """Return the split of every row of the store, [N]; an empty string for rows in no split.

    Examples:
        >>> np.unique(splits_of_rows(data)).tolist()  # doctest: +SKIP
        ['', 'test', 'train', 'val']
    """
    split = np.full(len(data.store.index), "", dtype="U5")
    for name, rows in whole(data.rows).items():
        split[rows] = name
    return split


def collect(experiment: str, data: PatchDataModule, facts: dict[str, Any], split: Names) -> Sheet:
    """Collect the content of the data sheet.

    Args:
        experiment: name of the experiment or data set.
        data: the data set, set up.
        facts: what `data.facts()` returns.
        split: what `splits_of_rows` returns, [N].

    Examples:
        >>> sheet = collect("headct", data, data.facts(), splits_of_rows(data))  # doctest: +SKIP
    """
    columns, labels = data.store.index.columns, data.store.labels
    class_names = np.array(columns["class_name"])
    named = np.where(labels == 0, "normal", np.where(class_names == "", "anomalous", class_names))
    unmasked = data.store.index.has_role("unmasked")
    scans = _scans(data)
    shown = (split != "") | bool(data.unsplit)
    return Sheet(
        experiment=experiment,
        made=run_folder.now(),
        facts=_nameless({name: facts[name] for name in SHARED if name in facts}, data.folder),
        unit="patch" if data.patch_sampling or len(labels) > len(data.store_plan.cases) else "image",
        counts=_counts(data, split, named),
        left_out=_left_out(data, split),
        unread=len(data.split) - len(data.store_plan.cases),
        hidden=(int(labels[data.rows["train"]].sum()), len(data.rows["train"])),
        unmasked=len(np.unique(np.array(columns["case"])[unmasked & (split != "")])),
        scans=scans,
        galleries={
            name: _exhibits(data, split, shown & (named == name)) for name in _ordered(named[shown])[:MAX_CLASSES]
        },
        store=_store(data),
        alike=images.png_uri(picture) if (picture := sheet(data, facts["audit"])) else "",
        settings=_nameless(_settings(data, facts, scans is not None and scans.volumes), data.folder),
        shortcuts=audit_of_data(data, split),
    )


def _manifest(data: PatchDataModule, split: Names) -> bytes:
    """Return every row of the store with its split, as CSV."""
    file = io.BytesIO()
    columns = data.store.index.columns | {"split": split.tolist()}
    names = list(MANIFEST)
    if data.targets is not None:
        targets = np.where(data.targets < 0, "", data.targets.astype(str)).T.tolist()
        columns = columns | {f"target:{name}": column for name, column in zip(data.classes, targets, strict=True)}
        names += [f"target:{name}" for name in data.classes]
    rows = zip(*(columns[name] for name in names), strict=True)
    file.writelines(line.encode() for line in csv_lines(chain([names], rows)))
    return file.getvalue()


def _ordered(named: Names) -> list[str]:
    """Return the classes that occur, normal first."""
    return sorted(np.unique(named).tolist(), key=lambda name: (name != "normal", name))


def _counts(data: PatchDataModule, split: Names, named: Names) -> list[Count]:
    """Count rows, scans and patients of each class in each split and in none."""
    columns = data.store.index.columns
    scans, patients = (np.unique(np.array(columns[name]), return_inverse=True)[1] for name in ("case", "patient"))
    counts = []
    for name in (*SPLITS, ""):
        for class_name in _ordered(named[split == name]):
            rows = np.flatnonzero((split == name) & (named == class_name))
            counts.append(
                Count(name, class_name, len(rows), len(np.unique(scans[rows])), len(np.unique(patients[rows])))
            )
    return counts


def _left_out(data: PatchDataModule, split: Names) -> dict[str, int]:
    """Count the rows that are in no split by reason; a row counts for the first reason that applies."""
    index, labels = data.store.index, data.store.labels
    of_case = np.array([data.split[case] for case in index.columns["case"]])
    random, evaluated = index.has_role("random"), of_case != "train"
    reasons = {
        "their scan is in no split": of_case == "",
        "random window of a scan that is not trained on": random & evaluated,
        "anomalous, in a scan of the training or validation split": (labels == 1) & (of_case != "test"),
        "grid window of a scan whose random windows are trained on": ~random & ~evaluated & bool(random.any()),
        "beyond data.limits": np.ones(len(labels), bool),
    }
    rest, counts = split == "", {}
    for reason, holds in reasons.items():
        counts[reason] = int(np.count_nonzero(rest & holds))
        rest = rest & ~holds
    return {reason: count for reason, count in counts.items() if count}


def _exhibits(data: PatchDataModule, split: Names, members: NDArray[np.bool_]) -> list[Exhibit]:
    """Draw patches of a class from all splits, with the seed of the data set."""
    rows = np.flatnonzero(members)
    rows = np.sort(stream(data.seed, "data sheet").permutation(rows)[:GALLERY_PATCHES])
    batch = data.store.batch(rows)
    masks = batch["mask"].numpy()[:, 0] if "mask" in batch else [None] * len(rows)
    exhibits = []
    for row, image, mask in zip(rows.tolist(), batch["image"].numpy(), masks, strict=True):
        facts, middle = data.store.index[row], image.shape[1] // 2
        if image.ndim == 4:
            image, mask = image[:, middle], None if mask is None else mask[middle]
        known = facts["role"] != "unmasked"
        exhibits.append(Exhibit(facts["id"], facts["case"], str(split[row]), facts["location"], image, mask, known))
    return exhibits


def _scans(data: PatchDataModule) -> ScanSummary | None:
    """Summarise the facts of the scans that were read; None if none was."""
    columns = data.store.index.columns
    labelled = zip(columns["case"], data.store.labels.tolist(), strict=True)
    anomalous = {case for case, label in labelled if label == 1}
    summary = None
    for fact in data.store.scans():
        if "skipped" not in fact:
            summary = summary or ScanSummary()
            summary.add(fact, "anomalous" if fact["case"] in anomalous else "normal")
    return summary


def _store(data: PatchDataModule) -> dict[str, str]:
    store = data.store
    shape = " × ".join(map(str, store.images.shape))
    facts = {
        "Rows × channels × patch": shape,
        "Kept as": str(store.images.dtype),
        "Fingerprint": store.fingerprint[:16],
    }
    if isinstance(store, Store):
        return {"Store": store.folder.name, "On disk": _megabytes(store), **facts}
    return {"Store": "none: pictures are read on demand", **facts}


def origin(data: PatchDataModule, seconds: float) -> str:
    """Describe the store in one line: built or reused, rows, size and name.

    Args:
        data: the data set, set up.
        seconds: duration of the set-up.

    Examples:
        >>> origin(data, 2.0)  # doctest: +SKIP
        'built in 2.0 s, 200 rows, 0.8 MB (headct-1a2b3c4d)'
    """
    store = data.store
    if not isinstance(store, Store):
        return f"none, {len(store.index)} pictures are read on demand"
    how = "reused" if store.reused else f"built in {seconds:.1f} s"
    return f"{how}, {len(store.index)} rows, {_megabytes(store)} ({store.folder.name})"


def verified(data: PatchDataModule) -> str:
    """Compare the whole store with its hashes and describe what was compared.

    Args:
        data: the data set, set up.

    Raises:
        UserError: something has changed.

    Examples:
        >>> verified(data)  # doctest: +SKIP
        'all 200 rows are as they were stored'
    """
    if not isinstance(data.store, Store):
        return "nothing, pictures are read on demand"
    return f"all {data.store.verify()} rows are as they were stored"


def _megabytes(store: Store) -> str:
    return f"{sum(path.stat().st_size for path in store.folder.iterdir()) / 1e6:.1f} MB"


def _settings(data: PatchDataModule, facts: dict[str, Any], volumes: bool) -> dict[str, dict[str, Any]]:
    """Return all settings that affect pixels and windows, by group."""
    preparation = data.preprocessing
    picture = {"size": preparation.size or "as it is", "fit": preparation.fit}
    patch_sampling = (
        asdict(data.patch_sampling)
        if data.patch_sampling
        else {"windows": "the default windows of volumes" if volumes else "none"}
    )
    return {
        "Preprocessing": asdict(preparation.volume) if volumes else picture,
        "Patches": {"patch_size": data.patch_size, "in_channels": data.in_channels, **patch_sampling},
        "Augmentation in training": asdict(data.augmentation) if data.augmentation else {},
        "Options of the data set": data.protocol() | {k: v for k, v in facts.items() if k not in (*SHARED, *OTHER)},
    }


def _nameless(value: Any, root: Path) -> Any:
    """Remove the paths of this machine's folders from a value."""
    if isinstance(value, dict):
        return {key: _nameless(item, root) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nameless(item, root) for item in value]
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, str):
        for place in (root.resolve(), root, Path.cwd(), Path.home()):
            value = value.replace(f"{place}/", "")
    return value
