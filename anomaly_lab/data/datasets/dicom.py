"""Your own DICOM files: any folder tree, grouped into series by UID, patient and modality; each series is a case.

Segmentations, dose, screenshots, reports and localizers are not scans: they are left out and counted by kind.

Labels: a CSV file (`labels.csv` at the root, or another one) with a column label, 0 or 1, and a column that identifies
the series: `id`, `folder` (path relative to the root) or `series` (SeriesInstanceUID or key). Without a CSV file, the
label follows from folders named normal and anomalous anywhere above the files. Masks are optional:
`masks/<id>.nii.gz` on the grid of the series, or `masks/<id>.png` for a picture. The id of a series is its folder, if
the folder contains no other series, otherwise the name of its file or its key. Names of folders and files appear in
reports: rename them if they identify a person.

The header says whose a series is, or `data.patient` does, if a tool has replaced every PatientID by ANONYMOUS.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anomaly_lab.data.datamodule import PatchDataModule, Role, roots
from anomaly_lab.data.readers import dicom
from anomaly_lab.data.readers.dicom import Series
from anomaly_lab.data.readers.files import read_scan
from anomaly_lab.data.readers.nifti import read_nifti_mask
from anomaly_lab.data.readers.patients import patient_names
from anomaly_lab.data.readers.pictures import Rules, read_mask
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.data.readers.tree import as_spelt, files_below, told
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
    version = 2

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
        patient: str | None = None,
        include: tuple[str, ...] = (),
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
            patient: who is who: a pattern of file paths relative to the root, such as "{patient}/*" or
                "*/{patient}_*", where `*` and `?` stay within a folder and `**/` matches any folders; or a CSV file,
                which may be `labels.csv`, with a column patient and one that identifies the series. None: the headers.
            include: kinds that are scans nevertheless, by the names under which the data sheet counts what is left
                out, such as ["Secondary Capture Image Storage"].
            **arguments: arguments of PatchDataModule.
        """
        super().__init__(**arguments)
        self.labels, self.unlisted, self.modality = labels, unlisted, modality
        self.normal, self.anomalous = _plain(normal), _plain(anomalous)
        self.voi, self.gaps, self.include = voi, gaps, include
        self.patient = patient
        pattern = patient is not None and not patient.lower().endswith(".csv")
        self.patient_pattern = _pattern(str(patient)) if pattern else None
        self.others, self.left_out = 0, Counter[str]()

    def cases(self, root: Path) -> list[Case]:
        """List the series in the order of their first files."""
        patient_of = None if self.patient_pattern is None else self._patient_of(root)
        listing = dicom.list_tree(root, self.include, patient_of)
        self.others, self.left_out = len(listing.others), Counter(listing.left_out.values()) + told(listing.results)
        if listing.unreadable:
            if self.on_bad == "fail":
                raise next(iter(listing.unreadable.values()))
            self.left_out["unreadable"] = len(listing.unreadable)
        all_series = _named(root, [series for series in listing.series if self.modality in (None, series.modality)])
        if not all_series:
            wanted = "DICOM images" if self.modality is None else f"DICOM images of modality {self.modality}"
            raise UserError(f"{root}: no {wanted}{self._without()}; {self.where_to_get}")
        if self.patient is not None and self.patient_pattern is None:
            all_series = _by_register(root / self.patient, all_series)
        table = root / self.labels if self.labels else as_spelt(root, _LIST)
        if self.labels is not None or table.exists():
            labels = _by_list(table, all_series)
        else:
            labels = {series.id: label for series in all_series if (label := self._by_folder(series)) is not None}
        self._validate_labels(root, all_series, labels)
        masks = _masks(as_spelt(root, _MASKS), all_series)
        return [_case(series, labels[series.id], masks.get(series.id)) for series in all_series if series.id in labels]

    def role(self, path: Path, source: Path) -> Role:
        """Return "mask" for a volume or picture in a folder of masks."""
        if not path.name.lower().endswith(_MASK_SUFFIXES):
            return "scan"
        masks = any(path.is_relative_to(as_spelt(root, _MASKS)) for root in roots(path, source))
        return "mask" if masks else "scan"

    def known_mask(self, image: Path, source: Path) -> Path | None:
        """Return the mask that is named like the folder or the file of a series, in or just above `source`."""
        for root in (*roots(image, source), *source.absolute().parents[:2]):
            masks = as_spelt(root, _MASKS)
            if masks.is_dir() and image.is_relative_to(root):
                names = [_below(root, name) for name in (image.parent, image.with_suffix(""), image)]
                paths = (masks / f"{name}{suffix}" for name in names for suffix in _MASK_SUFFIXES)
                if mask := next(filter(Path.exists, paths), None):
                    return mask
        return None

    def read_new(self, case: Case) -> Scan:
        """Read a series or picture with its mask."""
        return self.read(case)

    def read(self, case: Case) -> Scan:
        """Read a series as a volume in modality units, a single picture without position as displayed."""
        if not case.slices and not dicom.is_dicom(case.image):
            return read_scan(case, self.in_channels, self.picture)
        tolerance = self.preprocessing.volume.tolerance
        if not case.slices and dicom.is_picture(case.image):
            scan = Scan(dicom.read_picture(case.image, self.in_channels, self.voi, tolerance))
            return scan if case.mask is None else replace(scan, mask=_picture_mask(case.mask, scan, self.picture))
        voi = self.voi if self.preprocessing.volume.window == "scan" else None
        scan = dicom.read_series((case.image, *case.slices), voi, self.gaps, tolerance)
        if case.mask is None:
            return scan
        return replace(scan, mask=read_nifti_mask(case.mask, scan, tolerance=tolerance))

    def protocol(self) -> dict[str, Any]:
        """Return the options that change the pixels."""
        return {"voi": self.voi, "gaps": self.gaps}

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count series by label, their files, all other files, and those of them that are DICOM, by kind."""
        files = sum(1 + len(case.slices) for case in cases)
        counts = super().census(cases) | {"files": files, "other_files": self.others}
        return counts | {f"left out: {kind}": count for kind, count in sorted(self.left_out.items())}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic series in the folders normal and anomalous, with masks."""
        write_twin(root, seed, size)

    def _split(self, cases: Sequence[Case], tolerant: bool) -> dict[str, str]:
        """Name the true cause where one PatientID for all leaves nothing to split."""
        if self.patient is None and len(cases) > 1 and len({case.patient for case in cases}) == 1:
            fault = (
                f"{self.folder}: all {len(cases)} series have the same PatientID, so no patient can be kept out of the "
                'training; say who is who by data.patient, a pattern such as "{patient}/*" or a CSV'
            )
            if not tolerant:
                raise UserError(fault)
            self.unsplit = fault
            return {case.id: "" for case in cases}
        return super()._split(cases, tolerant)

    def _without(self) -> str:
        """What was left out and how to read it, for the error that nothing is left."""
        if not self.left_out:
            return ""
        kinds = ", ".join(f"{count} × {kind}" for kind, count in self.left_out.most_common())
        return f" among what is left out ({kinds}; data.include names those to read)"

    def _patient_of(self, root: Path) -> Callable[[Path], str]:
        pattern = self.patient_pattern
        assert pattern is not None

        def patient_of(path: Path) -> str:
            match = pattern.match(_below(root, path))
            if match is None:
                raise UserError(f"{path}: data.patient={self.patient} finds no patient in its path; put it right")
            return match["patient"]

        return patient_of

    def _by_folder(self, series: _Named) -> int | None:
        """Return the label from the names of the folders above the files; None if they are ambiguous."""
        names = set().union(*(_plain(path.relative_to(series.root).parts[:-1]) for path in series.files))
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


def _pattern(text: str) -> re.Pattern[str]:
    """Return the regular expression of `data.patient`, for paths below the root; deeper folders may follow.

    Raises:
        UserError: it does not say where the patient is.
    """
    if text.count("{patient}") != 1:
        raise UserError(f'data.patient={text}: it needs one {{patient}}, as in "{{patient}}/*", or is a .csv')
    parts = re.split(r"(\{patient\}|\*\*/|\*|\?)", text.strip("/"))
    wildcards = {"{patient}": "(?P<patient>[^/]+?)", "**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wildcards.get(part, re.escape(part)) for part in parts) + r"(?:/.*)?\Z")


def _by_register(table: Path, found: Sequence[_Named]) -> list[_Named]:
    """Return the series with the patients of the CSV, numbered, because its entries may identify them."""
    patients: dict[str, str] = {}
    for place, row, named in _rows(table, ("patient",), found):
        if not row["patient"]:
            raise UserError(f"{place}: patient is empty; fill it in")
        patients |= {each.id: row["patient"] for each in named}
    missing = [each.id for each in found if each.id not in patients]
    if missing:
        raise UserError(f"{table}: {len(missing)} series have no patient, {', '.join(missing[:5])}; complete the list")
    number = patient_names(patients[each.id] for each in found)
    return [each._replace(patient=number[patients[each.id]]) for each in found]


def _by_list(table: Path, found: Sequence[_Named]) -> dict[str, int]:
    """Labels by id, from the CSV."""
    labels: dict[str, int] = {}
    for place, row, named in _rows(table, ("label",), found):
        if row["label"] not in {"0", "1"}:
            raise UserError(f"{place}: label is {row['label']!r}, not 0 or 1; correct it")
        if any(each.id in labels for each in named):
            raise UserError(f"{place}: the series already has a label; keep one row")
        labels |= {each.id: int(row["label"]) for each in named}
    return labels


def _rows(
    table: Path, columns: tuple[str, ...], found: Sequence[_Named]
) -> Iterator[tuple[str, dict[str, str], list[_Named]]]:
    """Yield the rows of a CSV and the series each is about; its column `series` is never repeated: UIDs identify."""
    places = {"id": _index((each.id, each) for each in found), "folder": _index((each.folder, each) for each in found)}
    places["series"] = _index((name, each) for each in found for name in {each.key, each.key.partition("-")[0]})
    for place, row in read_table(table, columns):
        column = next((column for column in _ID_COLUMNS if row.get(column)), None)
        if column is None:
            raise UserError(f"{place}: none of the columns {', '.join(_ID_COLUMNS)} identifies the series; fill one in")
        value = _composed(row[column])
        named = places[column].get(value.strip("/")) or places[column].get(dicom.series_key(value)) or []
        if not named:
            raise UserError(f"{place}: no such series below the root of the data (column {column}); correct the row")
        yield place, row, named


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
            id = _below(folder, path)[: -len(suffix)]
            if id in masks:
                raise UserError(f"{path}: {id} has another mask, {masks[id]}; remove one")
            masks[id] = path
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
