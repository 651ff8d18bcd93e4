"""Bring your own DICOM: any tree of files, grouped into series by their UID; a series is a case.

Labels: a CSV (`labels.csv` at the root, or another) with a column label, 0 or 1, and one that says which series: `id`,
`folder` (path below the root) or `series` (SeriesInstanceUID or key); without a CSV, folders called normal and
anomalous anywhere above the files. Masks, optional: `masks/<id>.nii.gz` on the series' own grid, `masks/<id>.png` of a
picture. The id of a series is its folder, where it has one to itself, else the name of its file or its key. Names of
folders and files are shown: if they tell who somebody is, rename them.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers import dicom
from anomaly_lab.data.readers.dicom import Series
from anomaly_lab.data.readers.files import read_scan
from anomaly_lab.data.readers.nifti import read_nifti_mask
from anomaly_lab.data.readers.pictures import Rules, read_mask
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.data.readers.tree import files_below
from anomaly_lab.data.twins.dicom import write_twin
from anomaly_lab.types import Case, UserError

_LIST, _MASKS = "labels.csv", "masks"
_WHICH = ("id", "folder", "series")
_MASK_SUFFIXES = (".nii.gz", ".nii", ".png")


class Dicom(PatchDataModule):
    """Any tree of DICOM files."""

    name = "dicom"
    where_to_get = (
        "give a folder of DICOM files, in folders called normal and anomalous or with a labels.csv beside them"
    )
    twin_version = 1
    version = 1

    def __init__(
        self,
        *,
        labels: str | None = None,
        normal: tuple[str, ...] = ("normal",),
        anomalous: tuple[str, ...] = ("anomalous",),
        unlisted: Literal["fail", "ignore"] = "fail",
        modality: str | None = None,
        voi: str | None = "first",
        gaps: Literal["refuse", "blank"] = "refuse",
        **arguments: Any,
    ) -> None:
        """Keep the options; the rest is the base class's.

        Args:
            labels: the CSV, a path below `root` or a full one; None for `labels.csv` where it is there.
            normal: names of the folders of normal series, upper and lower case are one.
            anomalous: names of the folders of anomalous series.
            unlisted: series without a label are a mistake, or to be ignored.
            modality: only series of this one (CT, MR, DX, …); None for all.
            voi: window of a picture, or of volumes under `volume.window=scan`: "first", or the name it has in the
                header; None leaves the header's windows unread.
            gaps: a series with slices missing is refused, or has blank planes in their places.
            **arguments: of PatchDataModule.
        """
        super().__init__(**arguments)
        self.labels, self.unlisted, self.modality = labels, unlisted, modality
        self.normal, self.anomalous = _plain(normal), _plain(anomalous)
        self.voi, self.gaps = voi, gaps
        self.others = 0

    def cases(self, root: Path) -> list[Case]:
        """List the series in the order of their first files."""
        listing = dicom.list_tree(root)
        self.others = len(listing.others)
        found = _named(root, [series for series in listing.series if self.modality in (None, series.modality)])
        if not found:
            kind = "DICOM images" if self.modality is None else f"DICOM images of modality {self.modality}"
            raise UserError(f"{root}: no {kind}; {self.where_to_get}")
        table = root / (self.labels or _LIST)
        if self.labels is not None or table.is_file():
            labels = _by_list(table, found)
        else:
            labels = {each.id: label for each in found if (label := self._by_folder(each)) is not None}
        self._all_labelled(root, found, labels)
        masks = _masks(root / _MASKS, found)
        return [_case(each, labels[each.id], masks.get(each.id)) for each in found if each.id in labels]

    def read(self, case: Case) -> Scan:
        """Read a series as a volume in modality units, a single picture without a place in space as it is shown."""
        if not case.slices and not dicom.is_dicom(case.image):
            return read_scan(case, self.in_channels, self.picture)
        if not case.slices and dicom.is_picture(case.image):
            scan = Scan(dicom.read_picture(case.image, self.in_channels, self.voi))
            return scan if case.mask is None else replace(scan, mask=_picture_mask(case.mask, scan, self.picture))
        voi = self.voi if self.preprocessing.volume.window == "scan" else None
        scan = dicom.read_series((case.image, *case.slices), voi, self.gaps)
        return scan if case.mask is None else replace(scan, mask=read_nifti_mask(case.mask, scan))

    def protocol(self) -> dict[str, Any]:
        """What `read` makes of a window and of gaps."""
        return {"voi": self.voi, "gaps": self.gaps}

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count series by label, their files, and the files of the tree that are no DICOM images."""
        files = sum(1 + len(case.slices) for case in cases)
        return super().census(cases) | {"files": files, "other_files": self.others}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic series in the folders normal and anomalous, with masks."""
        write_twin(root, seed, size)

    def _by_folder(self, series: _Named) -> int | None:
        """Label by the names of the folders above the files."""
        names = _plain(series.files[0].relative_to(series.root).parts[:-1])
        normal, anomalous = bool(names & self.normal), bool(names & self.anomalous)
        return int(anomalous) if normal != anomalous else None

    def _all_labelled(self, root: Path, found: Sequence[_Named], labels: dict[str, int]) -> None:
        missing = [each.id for each in found if each.id not in labels]
        if missing and (self.unlisted == "fail" or not labels):
            some = f"{len(missing)} series have no label, {', '.join(missing[:5])}"
            folders = f"put them under folders called {' or '.join(sorted(self.normal | self.anomalous))}"
            raise UserError(f"{root}: {some}; {folders}, or list them in {_LIST} with the columns id, label")


class _Named(NamedTuple):
    """A series with its place in the tree: `id` unique, `folder` that of its first file below `root`."""

    root: Path
    id: str
    folder: str
    key: str
    patient: str
    files: tuple[Path, ...]


def _named(root: Path, listing: Sequence[Series]) -> list[_Named]:
    """Series by the clearest name each can have."""
    tenants: dict[Path, set[str]] = defaultdict(set)
    for series in listing:
        for path in series.files:
            tenants[path.parent].add(series.key)
    named = []
    for series in listing:
        first = series.files[0]
        folder = _below(root, first.parent)
        if len(tenants[first.parent]) == 1 and folder != ".":
            name = folder
        elif len(series.files) == 1:
            name = _below(root, first.with_suffix("") if first.suffix.lower() in {".dcm", ".dicom"} else first)
        else:
            name = series.key if folder == "." else f"{folder}/{series.key}"
        named.append(_Named(root, name, folder, series.key, series.patient, series.files))
    return named


def _by_list(table: Path, found: Sequence[_Named]) -> dict[str, int]:
    """Labels by id, from the CSV; what is in its column `series` is never repeated, UIDs identify."""
    places = {"id": _index((each.id, each) for each in found), "folder": _index((each.folder, each) for each in found)}
    places["series"] = _index((each.key, each) for each in found)
    labels: dict[str, int] = {}
    for place, row in read_table(table, ("label",)):
        column = next((column for column in _WHICH if row.get(column)), None)
        if column is None:
            raise UserError(f"{place}: none of the columns {', '.join(_WHICH)} says which series; fill one in")
        value = _composed(row[column])
        named = places[column].get(value.strip("/")) or places[column].get(dicom.series_key(value)) or []
        if not named:
            raise UserError(f"{place}: no such series below the root of the data (column {column}); put the row right")
        if row["label"] not in {"0", "1"}:
            raise UserError(f"{place}: label is {row['label']!r}, not 0 or 1; put it right")
        if any(each.id in labels for each in named):
            raise UserError(f"{place}: the series already has a label; keep one row")
        labels |= {each.id: int(row["label"]) for each in named}
    return labels


def _index(pairs: Iterator[tuple[str, _Named]]) -> dict[str, list[_Named]]:
    index: dict[str, list[_Named]] = defaultdict(list)
    for name, series in pairs:
        index[name].append(series)
    return dict(index)


def _masks(folder: Path, found: Sequence[_Named]) -> dict[str, Path]:
    """Mask of each series that has one, by id."""
    masks: dict[str, Path] = {}
    for path in sorted(files_below(folder)):
        suffix = next((suffix for suffix in _MASK_SUFFIXES if path.name.lower().endswith(suffix)), None)
        if suffix:
            masks[_below(folder, path)[: -len(suffix)]] = path
    orphans = sorted(masks.keys() - {each.id for each in found})
    if orphans:
        raise UserError(f"{masks[orphans[0]]}: no series has the id {orphans[0]}; rename the mask or remove it")
    return masks


def _case(series: _Named, label: int, mask: Path | None) -> Case:
    first, *rest = series.files
    return Case(series.id, series.patient, first, label, mask if label else None, slices=tuple(rest))


def _picture_mask(path: Path, scan: Scan, rules: Rules) -> Any:
    mask = read_mask(path, rules)
    if mask.shape[1:] != scan.shape:
        raise UserError(f"{path}: the mask is {mask.shape[1:]} pixels, its image {scan.shape}; make them equal")
    return mask


def _below(root: Path, path: Path) -> str:
    return _composed(path.relative_to(root).as_posix())


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _plain(names: Sequence[str]) -> set[str]:
    return {_composed(name).casefold() for name in names}
