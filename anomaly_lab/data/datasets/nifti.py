"""Your own volumes: NIfTI files named by a pattern, masks beside them, labels from the masks or from a list.

    root: scans                    # scans/patient01/flair.nii.gz, scans/patient01/lesion.nii.gz, …
    images: "**/flair.nii.gz"
    masks: lesion.nii.gz

An id is the path below the root without its suffix: patient01/flair.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.nifti import is_nifti, read_nifti, read_nifti_mask
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.twins.nifti import write_twin
from anomaly_lab.types import Case, Range, UserError

_WILDCARDS = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}
_WILDCARD = re.compile(r"(\*\*/|\*|\?)")


class _Row(NamedTuple):
    """A line of the list of labels."""

    label: int
    patient: str


class Nifti(PatchDataModule):
    """Volumes of any layout."""

    name = "nifti"
    where_to_get = "put your volumes there and name them by data.images, data.masks and data.labels"
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
        r"""Check the patterns; the rest is the base class's.

        Args:
            images: pattern of the volumes' paths below the root; `*` and `?` stay within a folder, `**/` stands for any
                folders, none included.
            masks: of lesions: a name beside the volume, `{stem}` standing for the volume's own without suffix; or, with
                the wildcards of `images` in the same order, a pattern below the root. A mask may be missing.
            labels: CSV with the columns id, label (0 or 1) and, if you like, patient; its path is below the root or
                absolute. None: a volume is anomalous if there is anything in its mask.
            patient: regular expression with a group named patient that is looked for in every id; None: a patient is a
                folder, so name it where one has several.
            mask_labels: numbers a mask may hold, such as [0, 1, 2, 4]; None for any from 0 on.
            **arguments: of PatchDataModule.
        """
        super().__init__(**arguments)
        self.image_pattern, self.mask_pattern, self.label_file = images, masks, labels
        self.mask_labels = None if mask_labels is None else sorted(mask_labels)
        if masks and _WILDCARD.search(masks) and _WILDCARD.findall(masks) != _WILDCARD.findall(images):
            raise UserError(f"data.masks={masks}: it needs the wildcards of data.images={images} in the same order")
        try:
            self.patient = None if patient is None else re.compile(patient)
        except re.error as error:
            raise UserError(f"data.patient={patient}: this is no regular expression ({error})") from error
        if self.patient is not None and "patient" not in self.patient.groupindex:
            raise UserError(f"data.patient={patient}: it needs a group named patient, as in (?P<patient>sub-\\d+)")

    def cases(self, root: Path) -> list[Case]:
        """List the volumes that match, in the order of their paths."""
        found = self._found(root)
        if not found:
            raise UserError(f"{root}: no volume matches data.images={self.image_pattern}; {self.where_to_get}")
        rows = self._labelled(root, found)
        named = {id: row.patient for id, row in rows.items() if row.patient}
        patients = self._patients(root, [id for id in found if id not in named]) | named
        cases = []
        for id, (image, mask) in found.items():
            label = rows[id].label if rows else self._label(image, mask)
            cases.append(Case(id, patients[id], image, label=label, mask=mask))
        return cases

    def read(self, case: Case) -> Scan:
        """Read a volume with its mask."""
        tolerance = self.preprocessing.volume.tolerance
        scan = read_nifti(case.image, tolerance)
        if case.mask is None:
            return scan
        return replace(scan, mask=read_nifti_mask(case.mask, scan, self.mask_labels, tolerance))

    def protocol(self) -> dict[str, Any]:
        """The labels decide which masks are refused."""
        return {"mask_labels": self.mask_labels}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic patients of the layout that the defaults describe."""
        write_twin(root, seed, size)

    def _found(self, root: Path) -> dict[str, tuple[Path, Path | None]]:
        """Volume and mask of every id; a volume that is another one's mask does not count."""
        found: dict[str, tuple[Path, Path | None]] = {}
        pattern = _regex(self.image_pattern)
        for path in sorted(root.rglob("*")):
            below = path.relative_to(root).as_posix()
            match = pattern.fullmatch(below)
            if match is None or not is_nifti(path) or path.name.startswith("."):
                continue
            id = _stem(below)
            if id in found:
                raise UserError(f"{path}: the same volume lies beside it, {found[id][0].name}; keep one of them")
            found[id] = path, self._mask(root, path, match)
        masks = {mask for _, mask in found.values() if mask is not None}
        return {id: (image, mask) for id, (image, mask) in found.items() if image not in masks}

    def _mask(self, root: Path, image: Path, match: re.Match[str]) -> Path | None:
        if not self.mask_pattern:
            return None
        pattern = self.mask_pattern.replace("{stem}", _stem(image.name))
        values = iter(match.groups())
        path = image.parent / pattern
        if _WILDCARD.search(self.mask_pattern):
            path = root / _WILDCARD.sub(lambda _: next(values), pattern)
        return path if path != image and path.is_file() else None

    def _labelled(self, root: Path, ids: dict[str, Any]) -> dict[str, _Row]:
        """The list of labels, a row for every volume; empty where there is no list."""
        if self.label_file is None:
            return {}
        path = root / self.label_file
        rows = _read_labels(path)
        for fault, which in (
            ("ids without a volume", rows.keys() - ids.keys()),
            ("volumes without a label", ids.keys() - rows.keys()),
        ):
            if which:
                some = ", ".join(sorted(which)[:5])
                raise UserError(f"{path}: {fault}: {some}; ids look like {min(ids)}, complete the list or the volumes")
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
                f"{root}: all {len(ids)} volumes lie in one folder, which tells no patients apart; give data.patient, "
                "such as '(?P<patient>[^/]+)$' if each is another patient's, or data.labels with a column patient"
            )
        return folders

    def _label(self, image: Path, mask: Path | None) -> int:
        """Whether there is anything in the mask."""
        if mask is None:
            raise UserError(f"{image}: it has no mask (data.masks={self.mask_pattern}); add it, or give data.labels")
        try:
            tolerance = self.preprocessing.volume.tolerance
            return int(read_nifti_mask(mask, None, self.mask_labels, tolerance).any())
        except UserError:
            if self.on_bad == "fail":
                raise
            return 1  # the store will come upon the same fault and leave the case out


def _regex(pattern: str) -> re.Pattern[str]:
    """A pattern with a group for each wildcard."""
    parts = _WILDCARD.split(pattern)
    return re.compile("".join(_WILDCARDS.get(part, re.escape(part)) for part in parts))


def _stem(path: str) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path, flags=re.IGNORECASE)


def _read_labels(path: Path) -> dict[str, _Row]:
    """Read id,label[,patient] as {"patient01/flair": …}."""
    rows: dict[str, _Row] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip() for name in lines.fieldnames or []]
            if not {"id", "label"} <= set(header):
                found = ", ".join(header) or "none"
                raise UserError(f"{path}: it needs the columns id and label and has {found}; put the header right")
            lines.fieldnames = header
            for line in lines:
                id, row = _row(path, lines.line_num, line)
                if id in rows:
                    raise UserError(f"{path}, line {lines.line_num}: id {id} appears twice; keep one row")
                rows[id] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: the list of labels (data.labels) cannot be read ({error})") from error
    return rows


def _row(path: Path, number: int, line: dict[str, Any]) -> tuple[str, _Row]:
    cells = {name: value.strip() for name, value in line.items() if name and isinstance(value, str)}
    id, label = _stem(cells.get("id", "")), cells.get("label", "")
    if label not in {"0", "1"}:
        raise UserError(f"{path}, line {number}: label of {id!r} is {label!r}, not 0 or 1; put it right")
    return id, _Row(int(label), cells.get("patient", ""))
