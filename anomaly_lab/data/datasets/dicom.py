"""Your own DICOM files: any folder tree, grouped into series by SeriesInstanceUID; each series is a case.

Labels: a CSV file (`labels.csv` at the root, or another one) with a column label, 0 or 1, and a column that identifies
the series: `id`, `folder` (path relative to the root) or `series` (SeriesInstanceUID or key). Without a CSV file, the
label follows from folders named normal and anomalous anywhere above the files. Masks are optional:
`masks/<id>.nii.gz` on the grid of the series, or `masks/<id>.png` for a picture. The id of a series is its folder, if
the folder contains no other series, otherwise the name of its file or its key. Names of folders and files appear in
reports: rename them if they identify a person.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anomaly_lab.data.datamodule import PatchDataModule, Role, roots
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
_ID_COLUMNS = ("id", "folder", "series")
_MASK_SUFFIXES = (".nii.gz", ".nii", ".png")


class Dicom(PatchDataModule):
    """Any folder tree of DICOM files.

    Examples:
        >>> import shutil, tempfile
        >>> from pydicom.data import get_testdata_file
        >>> data = Dicom(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name, file in {"normal/p1": "CT_small.dcm", "anomalous/p2": "MR_small.dcm"}.items():
        ...         (Path(root) / name).mkdir(parents=True)
        ...         _ = shutil.copy(get_testdata_file(file), Path(root) / name)
        ...     [(case.id, case.label) for case in data.cases(Path(root))]
        [('anomalous/p2', 1), ('normal/p1', 0)]
    """

    name = "dicom"
    where_to_get = (
        "give a folder of DICOM files, in folders named normal and anomalous or with a labels.csv beside them"
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
        """Set the options of this data set.

        Args:
            labels: CSV file with the labels, relative to `root` or absolute; None for `labels.csv`, if it exists.
            normal: names of the folders of normal series, case-insensitive.
            anomalous: names of the folders of anomalous series, case-insensitive.
            unlisted: "fail" raises an error for series without a label, "ignore" leaves them out.
            modality: use only series of this modality (CT, MR, DX, …); None for all.
            voi: display window of pictures, and of volumes if `volume.window=scan`: "first", or its explanation in the
                header; None ignores the windows in the header.
            gaps: "refuse" rejects a series with missing slices, "blank" fills them with blank planes.
            **arguments: arguments of PatchDataModule.
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
        all_series = _named(root, [series for series in listing.series if self.modality in (None, series.modality)])
        if not all_series:
            wanted = "DICOM images" if self.modality is None else f"DICOM images of modality {self.modality}"
            raise UserError(f"{root}: no {wanted}; {self.where_to_get}")
        table = root / (self.labels or _LIST)
        if self.labels is not None or table.is_file():
            labels = _by_list(table, all_series)
        else:
            labels = {series.id: label for series in all_series if (label := self._by_folder(series)) is not None}
        self._validate_labels(root, all_series, labels)
        masks = _masks(root / _MASKS, all_series)
        return [_case(series, labels[series.id], masks.get(series.id)) for series in all_series if series.id in labels]

    def role(self, path: Path, source: Path) -> Role:
        """Return "mask" for a volume or picture in a folder of masks."""
        masks = any(path.is_relative_to(root / _MASKS) for root in roots(path, source))
        return "mask" if masks and path.name.lower().endswith(_MASK_SUFFIXES) else "scan"

    def known_mask(self, image: Path, source: Path) -> Path | None:
        """Return the mask that is named like the folder or the file of a series, in or just above `source`."""
        for root in (*roots(image, source), *source.absolute().parents[:2]):
            if (root / _MASKS).is_dir() and image.is_relative_to(root):
                names = [_below(root, name) for name in (image.parent, image.with_suffix(""), image)]
                paths = (root / _MASKS / f"{name}{suffix}" for name in names for suffix in _MASK_SUFFIXES)
                if mask := next(filter(Path.is_file, paths), None):
                    return mask
        return None

    def read_new(self, case: Case) -> Scan:
        """Read a series or picture with its mask."""
        return self.read(case)

    def read(self, case: Case) -> Scan:
        """Read a series as a volume in modality units, a single picture without position as displayed."""
        if not case.slices and not dicom.is_dicom(case.image):
            return read_scan(case, self.in_channels, self.picture)
        if not case.slices and dicom.is_picture(case.image):
            scan = Scan(dicom.read_picture(case.image, self.in_channels, self.voi))
            return scan if case.mask is None else replace(scan, mask=_picture_mask(case.mask, scan, self.picture))
        voi = self.voi if self.preprocessing.volume.window == "scan" else None
        scan = dicom.read_series((case.image, *case.slices), voi, self.gaps)
        return scan if case.mask is None else replace(scan, mask=read_nifti_mask(case.mask, scan))

    def protocol(self) -> dict[str, Any]:
        """Return the options that change the pixels."""
        return {"voi": self.voi, "gaps": self.gaps}

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count series by label, their files, and the files that are not DICOM images."""
        files = sum(1 + len(case.slices) for case in cases)
        return super().census(cases) | {"files": files, "other_files": self.others}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic series in the folders normal and anomalous, with masks."""
        write_twin(root, seed, size)

    def _by_folder(self, series: _Named) -> int | None:
        """Return the label from the names of the folders above the files; None if they are ambiguous."""
        names = _plain(series.files[0].relative_to(series.root).parts[:-1])
        normal, anomalous = bool(names & self.normal), bool(names & self.anomalous)
        return int(anomalous) if normal != anomalous else None

    def _validate_labels(self, root: Path, all_series: Sequence[_Named], labels: dict[str, int]) -> None:
        missing = [series.id for series in all_series if series.id not in labels]
        if missing and (self.unlisted == "fail" or not labels):
            fault = f"{len(missing)} series have no label, {', '.join(missing[:5])}"
            folders = f"put them into folders named {' or '.join(sorted(self.normal | self.anomalous))}"
            raise UserError(f"{root}: {fault}; {folders}, or list them in {_LIST} with the columns id, label")


class _Named(NamedTuple):
    """A series with a unique `id` and the `folder` of its first file relative to `root`."""

    root: Path
    id: str
    folder: str
    key: str
    patient: str
    files: tuple[Path, ...]


def _named(root: Path, listing: Sequence[Series]) -> list[_Named]:
    """Give each series the most readable unique id: its folder, the name of its file, or its key."""
    keys_in: dict[Path, set[str]] = defaultdict(set)
    for series in listing:
        for path in series.files:
            keys_in[path.parent].add(series.key)
    named = []
    for series in listing:
        first = series.files[0]
        folder = _below(root, first.parent)
        if len(keys_in[first.parent]) == 1 and folder != ".":
            name = folder
        elif len(series.files) == 1:
            name = _below(root, first.with_suffix("") if first.suffix.lower() in {".dcm", ".dicom"} else first)
        else:
            name = series.key if folder == "." else f"{folder}/{series.key}"
        named.append(_Named(root, name, folder, series.key, series.patient, series.files))
    return named


def _by_list(table: Path, all_series: Sequence[_Named]) -> dict[str, int]:
    """Return labels by id from the CSV file; errors do not quote its column `series`, because UIDs identify people."""
    indices = {
        "id": _index((series.id, series) for series in all_series),
        "folder": _index((series.folder, series) for series in all_series),
        "series": _index((series.key, series) for series in all_series),
    }
    labels: dict[str, int] = {}
    for place, row in read_table(table, ("label",)):
        column = next((column for column in _ID_COLUMNS if row.get(column)), None)
        if column is None:
            raise UserError(f"{place}: none of the columns {', '.join(_ID_COLUMNS)} identifies the series; fill one in")
        value = _composed(row[column])
        matches = indices[column].get(value.strip("/")) or indices[column].get(dicom.series_key(value)) or []
        if not matches:
            raise UserError(f"{place}: no such series below the root of the data (column {column}); correct the row")
        if row["label"] not in {"0", "1"}:
            raise UserError(f"{place}: label is {row['label']!r}, not 0 or 1; correct it")
        if any(series.id in labels for series in matches):
            raise UserError(f"{place}: the series already has a label; keep one row")
        labels |= {series.id: int(row["label"]) for series in matches}
    return labels


def _index(pairs: Iterator[tuple[str, _Named]]) -> dict[str, list[_Named]]:
    index: dict[str, list[_Named]] = defaultdict(list)
    for name, series in pairs:
        index[name].append(series)
    return dict(index)


def _masks(folder: Path, all_series: Sequence[_Named]) -> dict[str, Path]:
    """Return the mask files by the id of their series."""
    masks: dict[str, Path] = {}
    for path in sorted(files_below(folder)):
        suffix = next((suffix for suffix in _MASK_SUFFIXES if path.name.lower().endswith(suffix)), None)
        if suffix:
            masks[_below(folder, path)[: -len(suffix)]] = path
    orphans = sorted(masks.keys() - {series.id for series in all_series})
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
