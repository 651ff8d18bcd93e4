"""Bring your own pictures: a folder, with labels from its sub-folders or from a list; masks are optional.

Sub-folders: `normal/…` and one for each kind of anomaly, as deep as you like; or the same under `train/`, `val/` and
`test/`, which then is the split. List: a CSV with the columns file, label and, where you have them, patient, mask and
split; file and mask are paths below the root, label is 0, 1 or a word. Masks: `masks/` mirrors the pictures' paths,
with any picture suffix, `_mask` may follow the name; an anomalous picture without one counts as unknown.
Names may hold spaces and any letters. Files that are no pictures are counted and left out; what is hidden, and what
systems and NAS boxes leave (`._a.png`, `Thumbs.db`, `@eaDir`), is not looked at.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.pictures import SUFFIXES
from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.data.readers.tree import files_below
from anomaly_lab.data.splitting.splits import SPLITS
from anomaly_lab.data.twins.folder import write_twin
from anomaly_lab.types import Case, UserError

_LIST, _MASKS = "labels.csv", "masks"  # used where they are there, unless the options name others


class Folder(PatchDataModule):
    """Any folder of pictures."""

    name = "folder"
    where_to_get = "give a folder with the sub-folders normal and one for each kind of anomaly, or with a labels.csv"
    twin_version = 1
    version = 1

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
        """Check the options; the rest is the base class's.

        Args:
            normal: sub-folders, or words of the column label, that mean normal; upper and lower case are one.
            labels: the list, a path below `root` or a full one; None for `labels.csv` where it is there.
            masks: folder of the masks, a path below `root` or a full one; None for `masks` where it is there.
            patient: regular expression; what its first group finds in a picture's path below the root is the patient.
                None makes each picture a patient of its own, unless the list has the column.
            unlisted: pictures that the list does not name are a mistake, or to be ignored.
            **arguments: of PatchDataModule.
        """
        super().__init__(**arguments)
        self.normal = frozenset(_key(name).casefold() for name in normal)
        self.labels, self.masks, self.unlisted = labels, masks, unlisted
        try:
            self.patient = None if patient is None else re.compile(patient)
        except re.error as error:
            raise UserError(f"data.patient={patient}: no regular expression ({error}); put it right") from error

    def cases(self, root: Path) -> list[Case]:
        """List the pictures by path, or in the order of the list."""
        found = self._find(root)
        listing = root / (self.labels or _LIST)
        if self.labels is not None and not listing.is_file():
            raise UserError(f"{listing}: no such list (data.labels, a path below the root or a full one); put it right")
        if listing.is_file():
            self.left_out -= Counter({listing.suffix.lower(): 1})  # where it lies below the root
        cases = self._by_list(listing, found) if listing.is_file() else self._by_folder(found)
        if not self.split_rule.within and all(case.label == 1 for case in cases):
            kinds = ", ".join(sorted({case.class_name for case in cases})[:5])
            normal = " or ".join(sorted(self.normal))
            raise UserError(f"{root}: nothing is called {normal}, there are {kinds}; name what is normal: data.normal")
        return cases

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic pictures in sub-folders, with masks."""
        write_twin(root, seed, size)

    def _find(self, root: Path) -> _Found:
        folder = root / (self.masks or _MASKS)
        if self.masks is not None and not folder.is_dir():
            raise UserError(f"{folder}: no such folder (data.masks, a path below the root or a full one); put it right")
        self.left_out.clear()
        files = _pictures_below(root, self.left_out)
        aside = f"{_key(os.path.relpath(folder, root))}/"
        pictures = {name: path for name, path in files.items() if not name.startswith(aside)}
        if not pictures:
            others = ", ".join(f"{count} {suffix}" for suffix, count in self.left_out.most_common(5))
            there = f", there are {others}" if others else ""
            raise UserError(f"{root}: no pictures ({' '.join(SUFFIXES)}){there}; {self.where_to_get}")
        return _Found(files, pictures, _masks_of(pictures, folder) if folder.is_dir() else {})

    def _by_folder(self, found: _Found) -> list[Case]:
        """Labels, and maybe the split, from the sub-folders."""
        fixed = {name.partition("/")[0] for name in found.pictures} <= set(SPLITS)
        cases = []
        for name, path in found.pictures.items():
            split, folders = (name.split("/")[0], name.split("/")[1:-1]) if fixed else (None, name.split("/")[:-1])
            if not folders:
                raise UserError(f"{path}: it lies in no sub-folder that tells its label; move it, or add a {_LIST}")
            label = int(folders[0].casefold() not in self.normal)
            mask, kind = (found.masks.get(name), folders[0]) if label else (None, "")
            cases.append(Case(name, self._patient(name, path), path, label, mask, kind, split))
        return cases

    def _by_list(self, listing: Path, found: _Found) -> list[Case]:
        """Labels, and maybe patient, mask and split, from the list."""
        cases: dict[str, Case] = {}
        used: set[str] = set()
        for place, row in read_table(listing, ("file", "label")):
            name, mask = _key(row["file"]), _key(row.get("mask", ""))
            if name not in found.pictures:
                raise UserError(f"{place}: no picture {row['file']!r} below the root of the data; put the path right")
            if name in cases:
                raise UserError(f"{place}: {row['file']} appears twice; keep one row")
            if mask and mask not in found.files:
                raise UserError(f"{place}: no mask {row['mask']!r} below the root of the data; put the path right")
            cases[name] = self._case(place, row, name, found)
            used |= {name, mask}
        forgotten = sorted(found.pictures.keys() - used)
        if forgotten and self.unlisted == "fail":
            some = f"{len(forgotten)} pictures are not in the list: {', '.join(forgotten[:5])}"
            raise UserError(f"{listing}: {some}; add them, or set data.unlisted=ignore")
        return list(cases.values())

    def _case(self, place: str, row: dict[str, str], name: str, found: _Found) -> Case:
        """One row of the list."""
        label, kind = self._label(place, row["label"])
        mask = found.files[_key(row["mask"])] if row.get("mask") else found.masks.get(name)
        patient = _group(row["patient"]) if row.get("patient") else self._patient(name, place)
        split = row.get("split")
        if split is not None and split not in SPLITS:
            raise UserError(f"{place}: split is {split!r}, not one of {', '.join(SPLITS)}; put it right")
        return Case(name, patient, found.pictures[name], label, mask if label else None, kind, split)

    def _label(self, place: str, word: str) -> tuple[int, str]:
        """Label and kind that the list's word stands for."""
        word = _key(word)
        if word.casefold() in self.normal:
            return 0, ""
        if any(_is_number(name) for name in self.normal):  # then the classes are called 0, 1, 2, …
            return 1, word
        if word in {"0", "1"}:
            return int(word), ""
        if not word or _is_number(word):
            raise UserError(f"{place}: label is {word!r}, neither 0 nor 1 nor a word; put it right, or set data.normal")
        return 1, word

    def _patient(self, name: str, place: str | Path) -> str:
        """Group key of a picture: what the regular expression finds in its path, else the picture itself."""
        if self.patient is None:
            return name
        match = self.patient.search(name)
        if match is None:
            raise UserError(f"{place}: data.patient={self.patient.pattern} finds no patient in {name}; put it right")
        return _group(match[1] if self.patient.groups else match[0])


class _Found(NamedTuple):
    """What lies below the root, by path below it.

    files: all picture files. pictures: those that are no masks. masks: the mask of each picture that has one.
    """

    files: dict[str, Path]
    pictures: dict[str, Path]
    masks: dict[str, Path]


def _pictures_below(root: Path, others: Counter[str] | None = None) -> dict[str, Path]:
    """Picture files below a folder, by their path below it, sorted; `others` counts all other files by their suffix."""
    found: dict[str, Path] = {}
    for path in files_below(root):
        if not path.name.lower().endswith(SUFFIXES):
            if others is not None:
                others[path.suffix.lower() or path.name] += 1
            continue
        key = _key(os.path.relpath(path, root))
        if key in found:
            raise UserError(f"{path}: another file differs in the coding of its accents only; rename one")
        found[key] = path
    return dict(sorted(found.items()))


def _masks_of(pictures: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Mask of each picture that has one: the same path without the suffix, `_mask` may follow.

    Raises:
        UserError: a mask belongs to no picture.
    """
    drawn = {_stem(name).removesuffix("_mask"): path for name, path in _pictures_below(folder).items()}
    stems = {name: _stem(name) for name in pictures}
    orphans = sorted(drawn.keys() - set(stems.values()))
    if orphans:
        raise UserError(f"{drawn[orphans[0]]}: no picture has the path of this mask; put that right or remove it")
    return {name: drawn[stem] for name, stem in stems.items() if stem in drawn}


def _stem(name: str) -> str:
    return name[: name.rindex(".")]


def _key(text: str) -> str:
    """A path or word as it is compared: accents composed (a Mac takes them apart), slashes forward, no ./ before it."""
    composed = unicodedata.normalize("NFC", text).replace("\\", "/")
    return posixpath.normpath(composed) if composed else ""


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _group(patient: str) -> str:
    """Group key of a patient: the number of a person does not go on into stores and reports."""
    return hashlib.sha256(patient.encode()).hexdigest()[:16]
