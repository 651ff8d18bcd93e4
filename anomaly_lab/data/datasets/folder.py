"""Your own pictures in a folder, with labels from its sub-folders or from a list; masks are optional.

Sub-folders: `normal/…` and one per class of anomaly, nested to any depth; or the same below `train/`, `val/` and
`test/`, which then are the split. List: a CSV file with the columns file, label and optionally patient, mask and split;
file and mask are paths relative to the root, label is 0, 1 or the name of a class. A split by folders or by the list in
which a patient is in two splits is refused, unless `data.split.by=image` is said. Masks: `masks/` mirrors the paths of
the pictures, with any picture suffix and optionally `_mask` after the name, one for each picture; the lesion of an
anomalous picture without mask is unknown. Names may contain spaces and any letters. Files that are not pictures are
counted and left out; hidden files and what systems and NAS boxes leave (`._a.png`, `Thumbs.db`, `@eaDir`) are ignored.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anomaly_lab.data.datamodule import PatchDataModule, Role, roots
from anomaly_lab.data.readers.patients import patient_names
from anomaly_lab.data.readers.pictures import SUFFIXES
from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.data.readers.tree import as_spelt, files_below, told
from anomaly_lab.data.splitting.splits import SPLITS
from anomaly_lab.data.twins.folder import write_twin
from anomaly_lab.types import Case, UserError

_LIST, _MASKS = "labels.csv", "masks"  # used if they exist and the options do not name others
_LIKE_MASKS = {"masks", "mask", "ground_truth", "groundtruth"}  # no class of anomalies, unless `data.masks` is set


class Folder(PatchDataModule):
    """Any folder of pictures.

    Examples:
        >>> import tempfile
        >>> data = Folder(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for path in (Path(root) / "normal" / "a.png", Path(root) / "crack" / "b.png"):
        ...         path.parent.mkdir()
        ...         path.touch()
        ...     [(case.id, case.label, case.class_name) for case in data.cases(Path(root))]
        [('crack/b.png', 1, 'crack'), ('normal/a.png', 0, '')]
    """

    name = "folder"
    where_to_get = "give a folder with the sub-folders normal and one per class of anomaly, or with a labels.csv"
    twin_version = 1
    version = 1
    users_split = True

    def __init__(
        self,
        *,
        normal: tuple[str, ...] = ("normal",),
        labels: str | None = None,
        masks: str | None = None,
        patient: str | None = None,
        unlisted: Literal["fail", "ignore"] = "fail",
        **arguments: Any,
    ) -> None:
        """Set the options of this data set.

        Args:
            normal: names of sub-folders, or values of the column label, that mean normal; case-insensitive.
            labels: the list, relative to `root` or absolute; None for `labels.csv`, if it exists.
            masks: folder of the masks, relative to `root` or absolute; None for `masks`, if it exists,
                whatever its capitals.
            patient: regular expression that is searched in the path of a picture relative to the root; its first group
                is the patient. None makes each picture a patient of its own, unless the list has the column.
            unlisted: "fail" raises an error for pictures that are not in the list, "ignore" leaves them out.
            **arguments: arguments of PatchDataModule.
        """
        super().__init__(**arguments)
        self.normal = frozenset(_key(name).casefold() for name in normal)
        self.labels, self.masks, self.unlisted = labels, masks, unlisted
        self._masks_in: dict[Path, frozenset[Path]] = {}
        self._mask_folders: dict[Path, Path] = {}
        try:
            self.patient = None if patient is None else re.compile(patient)
        except re.error as error:
            raise UserError(f"data.patient={patient}: not a regular expression ({error}); correct it") from error

    def cases(self, root: Path) -> list[Case]:
        """List the pictures by path, or in the order of the list."""
        files = self._find(root)
        listing = root / self.labels if self.labels else as_spelt(root, _LIST)
        if self.labels is not None and not listing.exists():
            raise UserError(f"{listing}: no such list (data.labels, relative to the root or absolute); correct it")
        if listing.exists():
            self.left_out -= Counter({listing.suffix.lower(): 1})  # if it lies below the root
        cases = _without_persons(self._by_list(listing, files) if listing.exists() else self._by_folder(files))
        if not self.split_rule.within and all(case.label == 1 for case in cases):
            classes = ", ".join(sorted({case.class_name for case in cases})[:5])
            normal = " or ".join(sorted(self.normal))
            raise UserError(
                f"{root}: no class is named {normal}, there are {classes}; set data.normal to the normal ones"
            )
        return cases

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic pictures in sub-folders, with masks."""
        write_twin(root, seed, size)

    def role(self, path: Path, source: Path) -> Role:
        """Return "mask" for a picture in a folder of masks or in the column mask of a list."""
        for root in roots(path, source):
            if path.is_relative_to(self._mask_folder(root)) or path in self._listed_masks(root):
                return "mask"
        return "scan"

    def known_mask(self, image: Path, source: Path) -> Path | None:
        """Return the mask at the same path below a folder of masks, in or just above `source`."""
        for root in (*roots(image, source), *source.absolute().parents[:2]):
            folder = self._mask_folder(root)
            if folder.is_dir() and image.is_relative_to(root):
                name = _stem(image.relative_to(root).as_posix())
                is_taken = any(image.with_name(f"{image.stem}_mask{suffix}").exists() for suffix in SUFFIXES)
                tails = ("",) if is_taken else ("", "_mask")  # that picture's own mask has this name
                paths = (folder / f"{name}{tail}{suffix}" for tail in tails for suffix in SUFFIXES)
                if mask := next(filter(Path.exists, paths), None):
                    return mask
        return None

    def _mask_folder(self, root: Path) -> Path:
        """Return the folder of masks of a folder of new pictures, which need not exist; it is looked for once."""
        if root not in self._mask_folders:
            self._mask_folders[root] = root / self.masks if self.masks else as_spelt(root, _MASKS)
        return self._mask_folders[root]

    def _listed_masks(self, root: Path) -> frozenset[Path]:
        """Return the masks that the list of a folder names, if it has one; the list is read once."""
        listing = root / self.labels if self.labels else as_spelt(root, _LIST)
        if listing not in self._masks_in:
            rows: list[dict[str, str]] = []
            if listing.exists():
                with contextlib.suppress(UserError):  # labels of new pictures are not needed, so neither is the list
                    rows = [row for _, row in read_table(listing, ())]
            self._masks_in[listing] = frozenset(root / _key(row["mask"]) for row in rows if row.get("mask"))
        return self._masks_in[listing]

    def _find(self, root: Path) -> Files:
        folder = root / self.masks if self.masks else as_spelt(root, _MASKS)
        if self.masks is not None and not folder.is_dir():
            raise UserError(f"{folder}: no such folder (data.masks, relative to the root or absolute); correct it")
        self.left_out.clear()
        files = _pictures_below(root, self.left_out)
        mask_prefix = f"{_key(os.path.relpath(folder, root))}/"
        pictures = {name: path for name, path in files.items() if not name.startswith(mask_prefix)}
        if not pictures:
            others = ", ".join(f"{count} {suffix}" for suffix, count in self.left_out.most_common(5))
            present = f", there are {others}" if others else ""
            raise UserError(f"{root}: no pictures ({' '.join(SUFFIXES)}){present}; {self.where_to_get}")
        return Files(files, pictures, _masks_of(pictures, folder) if folder.is_dir() else {})

    def _by_folder(self, files: Files) -> list[Case]:
        """Return the cases with labels, and the split if there is one, from the sub-folders."""
        fixed = {name.partition("/")[0] for name in files.pictures} <= set(SPLITS)
        cases = []
        for name, path in files.pictures.items():
            split, folders = (name.split("/")[0], name.split("/")[1:-1]) if fixed else (None, name.split("/")[:-1])
            if not folders:
                raise UserError(f"{path}: it is not in a sub-folder that gives its label; move it, or add a {_LIST}")
            if self.masks is None and folders[0].casefold() in _LIKE_MASKS - self.normal:
                raise UserError(
                    f"{path}: {folders[0]} sounds like a folder of masks, not like a class of anomalies; say which one "
                    "has the masks (data.masks=…, whose paths are those of the pictures), or rename it"
                )
            label = int(folders[0].casefold() not in self.normal)
            mask, class_name = (files.masks.get(name), folders[0]) if label else (None, "")
            cases.append(Case(name, self._patient(name, path), path, label, mask, class_name, split))
        return cases

    def _by_list(self, listing: Path, files: Files) -> list[Case]:
        """Return the cases with labels, and patient, mask and split if given, from the list."""
        cases: dict[str, Case] = {}
        used: set[str] = set()
        for place, row in read_table(listing, ("file", "label")):
            name, mask = _key(row["file"]), _key(row.get("mask", ""))
            if name not in files.pictures:
                raise UserError(f"{place}: no picture {row['file']!r} below the root of the data; correct the path")
            if name in cases:
                raise UserError(f"{place}: {row['file']} appears twice; keep one row")
            if mask and mask not in files.all:
                raise UserError(f"{place}: no mask {row['mask']!r} below the root of the data; correct the path")
            cases[name] = self._case(place, row, name, files)
            used |= {name, mask}
        unlisted = sorted(files.pictures.keys() - used)
        if unlisted and self.unlisted == "fail":
            fault = f"{len(unlisted)} pictures are not in the list: {', '.join(unlisted[:5])}"
            raise UserError(f"{listing}: {fault}; add them, or set data.unlisted=ignore")
        return list(cases.values())

    def _case(self, place: str, row: dict[str, str], name: str, files: Files) -> Case:
        """Return the case of a row of the list."""
        label, class_name = self._label(place, row["label"])
        mask = files.all[_key(row["mask"])] if row.get("mask") else files.masks.get(name)
        patient = _Person(row["patient"]) if row.get("patient") else self._patient(name, place)
        split = row.get("split")
        if split is not None and split not in SPLITS:
            raise UserError(f"{place}: split is {split!r}, not one of {', '.join(SPLITS)}; correct it")
        return Case(name, patient, files.pictures[name], label, mask if label else None, class_name, split)

    def _label(self, place: str, word: str) -> tuple[int, str]:
        """Return label and class name for a value of the column label."""
        word = _key(word)
        if word.casefold() in self.normal:
            return 0, ""
        if any(_is_number(name) for name in self.normal):  # the classes are named 0, 1, 2, …
            return 1, word
        if word in {"0", "1"}:
            return int(word), ""
        if not word or _is_number(word):
            raise UserError(
                f"{place}: label is {word!r}, neither 0 nor 1 nor the name of a class; correct it, or set data.normal"
            )
        return 1, word

    def _patient(self, name: str, place: str | Path) -> str:
        r"""Return the group key of a picture: what the regular expression finds in its path, or its own name.

        Of several groups the first that takes part counts, as of `p(\d+)|q(\d+)`.
        """
        if self.patient is None:
            return name
        match = self.patient.search(name)
        found = match and next(filter(None, match.groups()), None if self.patient.groups else match[0])
        if not found:
            raise UserError(f"{place}: data.patient={self.patient.pattern} finds no patient in {name}; correct it")
        return _Person(found)


class Files(NamedTuple):
    """Files below the root, by relative path.

    Attributes:
        all: all picture files.
        pictures: those that are not masks.
        masks: the mask of each picture that has one.

    Examples:
        >>> Files({"a.png": Path("a.png")}, {}, {}).pictures
        {}
    """

    all: dict[str, Path]
    pictures: dict[str, Path]
    masks: dict[str, Path]


def _pictures_below(root: Path, others: Counter[str] | None = None) -> dict[str, Path]:
    """Return the picture files below a folder, sorted by relative path; `others` counts by suffix what is left out."""
    files: dict[str, Path] = {}
    results: list[Path] = []
    for path in files_below(root, results):
        if not path.name.lower().endswith(SUFFIXES):
            if others is not None:
                others[path.suffix.lower() or path.name] += 1
            continue
        key = _key(os.path.relpath(path, root))
        if key in files:
            raise UserError(f"{path}: another file name differs only in the encoding of its accents; rename one")
        files[key] = path
    if others is not None:
        others += told(results)
    return dict(sorted(files.items()))


def _masks_of(pictures: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Return the mask of each picture that has one; their paths are equal except for the suffix and `_mask`.

    Raises:
        UserError: a mask belongs to no picture or to several, or a picture has several masks.
    """
    by_stem: dict[str, list[str]] = {}
    for name in pictures:
        by_stem.setdefault(_stem(name), []).append(name)
    masks: dict[str, Path] = {}
    for name, path in _pictures_below(folder).items():
        stem = _stem(name)  # the name of a picture may end with _mask, too
        owners = by_stem.get(stem) or by_stem.get(stem.removesuffix("_mask"), [])
        if not owners:
            raise UserError(f"{path}: no picture has the path of this mask; rename it or remove it")
        if len(owners) > 1:
            raise UserError(f"{path}: this mask may be that of {' or '.join(owners)}; rename all but one picture")
        if owners[0] in masks:
            raise UserError(f"{path}: {owners[0]} has another mask, {masks[owners[0]]}; remove one")
        masks[owners[0]] = path
    return masks


def _stem(name: str) -> str:
    return name[: name.rindex(".")]


def _key(text: str) -> str:
    """Normalize a path or word: accents composed (macOS decomposes them), forward slashes, no leading ./."""
    composed = unicodedata.normalize("NFC", text).replace("\\", "/")
    return posixpath.normpath(composed) if composed else ""


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


class _Person(str):
    """A patient's name or number as a list or a path has it; it is replaced before the cases leave this module."""


def _without_persons(cases: list[Case]) -> list[Case]:
    """Return the cases with numbers in place of persons, in the order in which they come."""
    names = patient_names(case.patient for case in cases if isinstance(case.patient, _Person))
    return [replace(case, patient=names[case.patient]) if isinstance(case.patient, _Person) else case for case in cases]
