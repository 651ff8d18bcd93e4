"""Your own volumes: NIfTI files that match a pattern, with their masks; labels come from the masks or from a list.

    root: scans                    # scans/patient01/flair.nii.gz, scans/patient01/lesion.nii.gz, …
    images: "**/flair.nii.gz"
    masks: lesion.nii.gz

An id is the path relative to the root without its suffix: patient01/flair.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from anomaly_lab.data.datamodule import PatchDataModule, Role
from anomaly_lab.data.readers.nifti import is_nifti, read_nifti, read_nifti_mask
from anomaly_lab.data.readers.patients import patient_names
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.readers.tables import as_csv
from anomaly_lab.data.readers.tree import files_below, told
from anomaly_lab.data.twins.nifti import write_twin
from anomaly_lab.experiment.tables import open_table
from anomaly_lab.types import Case, Range, UserError

_WILDCARDS = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}
_WILDCARD = re.compile(r"(\*\*/|\*|\?)")


class _Row(NamedTuple):
    """A row of the list of labels."""

    label: int
    patient: str


class Nifti(PatchDataModule):
    """NIfTI volumes in any layout.

    Examples:
        >>> import tempfile
        >>> import nibabel as nib
        >>> import numpy as np
        >>> data = Nifti(root="none", source="twin", images="**/t2.nii", masks="tumour.nii")
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for lesion in (0, 1):
        ...         patient = Path(root) / f"patient{lesion}"
        ...         patient.mkdir()
        ...         (patient / "t2.nii").touch()
        ...         nib.save(nib.Nifti1Image(np.full((2, 2, 2), lesion, np.uint8), np.eye(4)), patient / "tumour.nii")
        ...     [(case.id, case.patient, case.label) for case in data.cases(Path(root))]
        [('patient0/t2', 'patient0', 0), ('patient1/t2', 'patient1', 1)]
    """

    name = "nifti"
    where_to_get = "put your volumes there and describe them by data.images, data.masks and data.labels"
    twin_version = 1
    version = 1

    def __init__(
        self,
        *,
        images: str = "**/flair.nii.gz",
        masks: str | None = "lesion.nii.gz",
        labels: str | None = None,
        patient: str | None = None,
        mask_labels: Annotated[Sequence[int], Range("[0, 65535]")] | None = None,
        **arguments: Any,
    ) -> None:
        r"""Set the options of this data set and validate the patterns.

        Args:
            images: pattern for the paths of the volumes relative to the root; `*` and `?` match within a folder, `**/`
                matches any number of folders, including none.
            masks: the lesion mask of a volume: a file name in the folder of the volume, where `{stem}` is the name of
                the volume without suffix; or, with the wildcards of `images` in the same order, a path relative to the
                root. A mask may be missing.
            labels: CSV file with the columns id, label (0 or 1) and optionally patient, relative to the root or
                absolute. None: a volume is anomalous if its mask is not empty.
            patient: regular expression with a group named patient, which is searched in every id. None: each folder is
                a patient, so set it if a patient has several folders.
            mask_labels: allowed values of a mask, such as [0, 1, 2, 4]; None for every non-negative integer.
            **arguments: arguments of PatchDataModule.
        """
        super().__init__(**arguments)
        self.image_pattern, self.mask_pattern, self.label_file = images, masks, labels
        self.mask_labels = None if mask_labels is None else sorted(mask_labels)
        self._masks_in: dict[Path, set[Path]] = {}
        if masks and _WILDCARD.search(masks) and _WILDCARD.findall(masks) != _WILDCARD.findall(images):
            raise UserError(f"data.masks={masks}: it needs the wildcards of data.images={images} in the same order")
        try:
            self.patient = None if patient is None else re.compile(patient)
        except re.error as error:
            raise UserError(f"data.patient={patient}: not a regular expression ({error}); correct it") from error
        if self.patient is not None and "patient" not in self.patient.groupindex:
            raise UserError(f"data.patient={patient}: it needs a group named patient, as in (?P<patient>sub-\\d+)")

    def cases(self, root: Path) -> list[Case]:
        """List the volumes that match, in the order of their paths."""
        volumes = self._volumes(root)
        if not volumes:
            raise UserError(f"{root}: no volume matches data.images={self.image_pattern}; {self.where_to_get}")
        rows = self._labelled(root, volumes)
        listed = {id: row.patient for id, row in rows.items() if row.patient}
        patients = self._patients(root, [id for id in volumes if id not in listed]) | listed
        if listed:  # a list may have names or hospital numbers
            names = patient_names(patients[id] for id in volumes)
            patients = {id: names[person] for id, person in patients.items()}
        cases = []
        for id, (image, mask) in volumes.items():
            label = rows[id].label if rows else self._label(image, mask)
            cases.append(Case(id, patients[id], image, label=label, mask=mask))
        return cases

    def role(self, path: Path, source: Path) -> Role:
        """Return "scan" for a volume whose path ends as `images` says, "mask" for one that is the mask of another."""
        if not is_nifti(path) or path == source:
            return "scan"
        if path.name == self.mask_pattern or path.resolve() in self._masks_beside(path, source):
            return "mask"
        if any(True for _ in self._matches(path, self.image_pattern)):
            return "scan"
        masks = _WILDCARD.search(self.mask_pattern or "") and str(self.mask_pattern).replace("{stem}", "*")
        return "mask" if masks and any(True for _ in self._matches(path, masks)) else "other"

    def known_mask(self, image: Path, source: Path) -> Path | None:
        """Return the mask of a volume, where `masks` says."""
        masks = (self._mask(root, image, match) for root, match in self._matches(image, self.image_pattern))
        return next(filter(None, masks), None)

    def read_new(self, case: Case) -> Scan:
        """Read a volume with its mask."""
        return self.read(case)

    def _matches(self, path: Path, pattern: str) -> Iterator[tuple[Path, re.Match[str]]]:
        """Yield the folders above a file from which its path matches a pattern, the nearest first."""
        expression, path = _regex(pattern), path.absolute()
        for root in path.parents:
            if match := expression.fullmatch(path.relative_to(root).as_posix()):
                yield root, match

    def _masks_beside(self, path: Path, source: Path) -> set[Path]:
        """Return the masks of the volumes in the folder of a file; the folder is looked at once."""
        if path.parent not in self._masks_in:
            volumes = [other for other in path.parent.iterdir() if is_nifti(other) and not other.name.startswith(".")]
            masks = (self.known_mask(volume, source) for volume in volumes)
            self._masks_in[path.parent] = {mask.resolve() for mask in masks if mask is not None}
        return self._masks_in[path.parent]

    def read(self, case: Case) -> Scan:
        """Read a volume with its mask."""
        tolerance = self.preprocessing.volume.tolerance
        scan = read_nifti(case.image, tolerance)
        if case.mask is None:
            return scan
        return replace(scan, mask=read_nifti_mask(case.mask, scan, self.mask_labels, tolerance))

    def protocol(self) -> dict[str, Any]:
        """Return the option that decides which masks are rejected."""
        return {"mask_labels": self.mask_labels}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic patients in the layout that the defaults describe."""
        write_twin(root, seed, size)

    def _volumes(self, root: Path) -> dict[str, tuple[Path, Path | None]]:
        """Return volume and mask of every id; files that are the mask of another volume are not listed."""
        volumes: dict[str, tuple[Path, Path | None]] = {}
        pattern, results = _regex(self.image_pattern), list[Path]()
        for path in sorted(files_below(root, results)):
            below = path.relative_to(root).as_posix()
            match = pattern.fullmatch(below)
            if match is None or not is_nifti(path):
                continue
            id = _stem(below)
            if id in volumes:
                raise UserError(f"{path}: {volumes[id][0].name} in the same folder has the same id; keep one of them")
            volumes[id] = path, self._mask(root, path, match)
        self.left_out = told(results)
        masks = {mask for _, mask in volumes.values() if mask is not None}
        return {id: (image, mask) for id, (image, mask) in volumes.items() if image not in masks}

    def _mask(self, root: Path, image: Path, match: re.Match[str]) -> Path | None:
        if not self.mask_pattern:
            return None
        pattern = self.mask_pattern.replace("{stem}", _stem(image.name))
        values = iter(match.groups())
        path = image.parent / pattern
        if _WILDCARD.search(self.mask_pattern):
            path = root / _WILDCARD.sub(lambda _: next(values), pattern)
        return path if path != image and path.exists() else None

    def _labelled(self, root: Path, ids: dict[str, Any]) -> dict[str, _Row]:
        """Return the list of labels, with a row for every volume; empty if there is no list."""
        if self.label_file is None:
            return {}
        path = root / self.label_file
        rows = _read_labels(path)
        for fault, names in (
            ("ids without a volume", rows.keys() - ids.keys()),
            ("volumes without a label", ids.keys() - rows.keys()),
        ):
            if names:
                examples = ", ".join(sorted(names)[:5])
                raise UserError(
                    f"{path}: {fault}: {examples}; ids look like {min(ids)}, complete the list or the volumes"
                )
        return rows

    def _patients(self, root: Path, ids: list[str]) -> dict[str, str]:
        if self.patient is not None:
            matches = {id: self.patient.search(id) for id in ids}
            for id, match in matches.items():
                if match is None or not match["patient"]:
                    raise UserError(f"{root / id}: data.patient={self.patient.pattern} finds no patient in its path")
            return {id: match["patient"] for id, match in matches.items() if match is not None}
        folders = {id: id.rpartition("/")[0] for id in ids}
        if len(set(folders.values())) == 1 and len(ids) > 1:
            raise UserError(
                f"{root}: all {len(ids)} volumes are in one folder, which does not identify patients; set data.patient "
                "(such as '(?P<patient>[^/]+)$' for one volume per patient) or data.labels with a column patient"
            )
        return folders

    def _label(self, image: Path, mask: Path | None) -> int:
        """Return 1 if the mask is not empty, otherwise 0."""
        if mask is None:
            raise UserError(f"{image}: it has no mask (data.masks={self.mask_pattern}); add it, or set data.labels")
        try:
            tolerance = self.preprocessing.volume.tolerance
            return int(read_nifti_mask(mask, None, self.mask_labels, tolerance).any())
        except UserError:
            if self.on_bad == "fail":
                raise
            return 1  # the store meets the same error and leaves the case out


def _regex(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern, with a group for each wildcard."""
    parts = _WILDCARD.split(pattern)
    return re.compile("".join(_WILDCARDS.get(part, re.escape(part)) for part in parts))


def _stem(path: str) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path, flags=re.IGNORECASE)


def _read_labels(path: Path) -> dict[str, _Row]:
    """Read a CSV file with the columns id, label and optionally patient as {"patient01/flair": row, …}."""
    rows: dict[str, _Row] = {}
    try:
        with open_table(path, "utf-8-sig") as file:
            table, delimiter = as_csv(file)
            lines = csv.DictReader(table, delimiter=delimiter, skipinitialspace=True)
            header = [name.strip() for name in lines.fieldnames or []]
            if not {"id", "label"} <= set(header):
                present = ", ".join(header) or "none"
                raise UserError(f"{path}: it needs the columns id and label and has {present}; correct the header")
            lines.fieldnames = header
            for line in lines:
                id, row = _row(path, lines.line_num, line)
                if id in rows:
                    raise UserError(f"{path}, line {lines.line_num}: id {id} appears twice; keep one row")
                rows[id] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: the list of labels (data.labels) cannot be read ({error}); correct the path or the file"
        ) from error
    return rows


def _row(path: Path, number: int, line: dict[str, Any]) -> tuple[str, _Row]:
    cells = {name: value.strip() for name, value in line.items() if name and isinstance(value, str)}
    id, label = _stem(cells.get("id", "")), cells.get("label", "")
    if label not in {"0", "1"}:
        raise UserError(f"{path}, line {number}: label of {id!r} is {label!r}, not 0 or 1; correct it")
    return id, _Row(int(label), cells.get("patient", ""))
