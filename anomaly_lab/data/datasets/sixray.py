"""SIXray10, 100 and 1000 (Miao et al. 2019, CVPR): 1 059 231 X-ray pictures of bags, 8929 with a prohibited item.

Layout: `JPEGImage/<name>.jpg` (or folders of these in JPEGImage), `ImageSet/{10,100,1000}/{train,test}.csv` with the
columns name, Gun, Knife, Wrench, Pliers, Scissors (1 yes, -1 no, 0 hard to say), and for some of the bags with an item
`Annotation/<name>.xml` (Pascal VOC), whose boxes serve as mask. P##### has an item (P that is none of the five has a
hammer, which the lists leave out: kind "other"), N####### has none. Counts are those of the lists (DATASETS §11).
"""

from __future__ import annotations

import gc
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.readers.tree import is_seen
from anomaly_lab.data.twins.sixray import write_twin
from anomaly_lab.types import Case, UserError

CATEGORIES = ("Gun", "Knife", "Wrench", "Pliers", "Scissors")
SUBSETS = (10, 100, 1000)
TOTALS = {10: (98219, 8929), 100: (901829, 8929), 1000: (1051302, 1000)}  # bags, those with an item
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NAME = re.compile(r"P\d{5}|N\d{7}", re.ASCII)
_LISTS = (
    "get the lists from the authors' page (github.com/MeioJane/SIXray) and lay them out as ImageSet/10/train.csv, name "
    "your own with data.train_list and data.test_list, or read bare pictures with the data set `folder`"
)


class SIXray(PatchDataModule):
    """X-ray pictures of bags, each a bag of its own; the lists say who trains and who is judged."""

    name = "sixray"
    where_to_get = (
        "get SIXray (github.com/MeioJane/SIXray), unpack its parts to JPEGImage/P00001.jpg and the others, and lay the "
        "lists out as ImageSet/10/train.csv"
    )
    twin_version = 1
    version = 1

    def __init__(
        self,
        *,
        subset: Literal[10, 100, 1000] = 10,
        category: Literal["Gun", "Knife", "Wrench", "Pliers", "Scissors"] | None = None,
        train_list: str | None = None,
        test_list: str | None = None,
        check: bool = False,
        **arguments: Any,
    ) -> None:
        """Set the options of this data set; all others are PatchDataModule's.

        Args:
            subset: 10, 100 or 1000 bags without an item for each with one.
            category: the one kind of item to be found: bags with others alone, or hard to say, are left out; None
                for any item.
            train_list, test_list: CSV lists under `root` in place of those of the subset.
            check: look for every picture before the start; a missing one is otherwise found when it is read.
            **arguments: of PatchDataModule.
        """
        if subset not in SUBSETS:
            raise UserError(f"data.subset={subset}: the lists are {', '.join(map(str, SUBSETS))}; take one of these")
        if category is not None and category not in CATEGORIES:
            raise UserError(f"data.category={category}: it is one of {', '.join(CATEGORIES)}, or null for any")
        self.subset, self.category, self.check = subset, category, check
        self.lists = {
            "train": train_list or f"ImageSet/{subset}/train.csv",
            "test": test_list or f"ImageSet/{subset}/test.csv",
        }
        self._tally: Counter[tuple[str, _Bag]] = Counter()
        super().__init__(**arguments)

    def cases(self, root: Path) -> list[Case]:
        """List the bags in the order of the lists; kind is all their items, as in "Gun+Knife".

        Raises:
            UserError: a list is missing or faulty, a bag is listed twice, `check` finds no picture.
        """
        lists = {split: _List(root / path) for split, path in self.lists.items()}
        folder = root / "JPEGImage"
        files = _files(folder, self.check)
        boxes = {path.stem: path for path in (root / "Annotation").glob("*.xml") if is_seen(path.name)}
        _refuse_twins(lists["train"], lists["test"])
        self._tally = Counter()
        cases = []
        with _uncollected():
            for split, table in lists.items():
                for name, bag in table.rows():
                    if self.check and name not in files:
                        raise table.fault(name, f"no picture {name}.jpg in {folder}; complete the data set")
                    self._tally[split, bag] += 1
                    label = self._label(bag)
                    if label is not None:
                        image = folder / files.get(name, f"{name}.jpg")
                        cases.append(
                            Case(name, name, image, label, boxes.get(name) if label else None, bag.class_name, split)
                        )
        self._compare(root)
        return cases

    def read(self, case: Case) -> Scan:
        """Read a bag; where boxes are known, they are the mask."""
        scan = super().read(replace(case, mask=None))
        if case.mask is None:
            return scan
        return replace(scan, mask=box_mask(case.mask, scan.shape, self.category))

    def protocol(self) -> dict[str, Any]:
        """What changes the masks."""
        return super().protocol() | {"category": self.category}

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count the bags of the lists, whatever `category` leaves of them, those of each split and with each item."""
        counts: Counter[str] = Counter()
        for (split, bag), n in self._tally.items():
            for word in ("images", "anomalous" if bag.anomalous else "normal", split, *bag.items):
                counts[word] += n
        return dict(counts)

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic bags of the same layout."""
        write_twin(root, seed, size)

    def facts(self) -> dict[str, Any]:
        """Add what the official lists must give."""
        images, anomalous = TOTALS[self.subset]
        return super().facts() | {"official": {"images": images, "anomalous": anomalous}}

    def _label(self, bag: _Bag) -> int | None:
        """0 or 1; None to leave it out."""
        if not bag.anomalous:
            return None if bag.unsure else 0
        return 1 if self.category is None or self.category in bag.items else None

    def _compare(self, root: Path) -> None:
        """Refuse lists that are as long as the official ones and hold other bags."""
        counts = self.census(())
        images, anomalous = TOTALS[self.subset]
        if counts.get("images") == images and counts.get("anomalous") != anomalous:
            raise UserError(
                f"{root / self.lists['train']}: of the {images} bags listed here and in the test list "
                f"{counts.get('anomalous', 0)} are P, where SIXray{self.subset} has {anomalous}; get the lists anew"
            )


class _Bag(NamedTuple):
    """What a row says: P or N, the items there for sure, the same as one word, whether any is hard to say."""

    anomalous: bool
    items: tuple[str, ...]
    class_name: str
    unsure: bool


class _List:
    """A CSV list, checked; made for a million rows: those of the same values share one _Bag.

    Attributes:
        path: the file.
        names: of the bags, in its order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            first, *lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such list; {_LISTS}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: the list cannot be read ({error}); {_LISTS}") from error
        self._columns = [cell.strip() for cell in first.split(",")]
        if self._columns[0] != "name" or not set(CATEGORIES) <= set(self._columns):
            raise UserError(f"{path}: its header is {first!r}, not name,{','.join(CATEGORIES)}; put it right")
        self._lines = [line for line in lines if line]
        self.names = [line.partition(",")[0].strip() for line in self._lines]
        if not all(map(_NAME.fullmatch, self.names)):
            name = next(name for name in self.names if not _NAME.fullmatch(name))
            raise self.fault(name, f"{name!r} is not P and five digits or N and seven; put it right")

    def rows(self) -> Iterator[tuple[str, _Bag]]:
        """Yield name and what the list says of it."""
        bags: dict[tuple[str, str], _Bag] = {}
        for name, line in zip(self.names, self._lines, strict=True):
            key = name[0], line.partition(",")[2]
            bag = bags.get(key)
            if bag is None:
                bag = bags[key] = self._bag(name, key[1])
            yield name, bag

    def fault(self, name: str, what: str, nth: int = 1) -> UserError:
        """The complaint about the nth row of a bag."""
        with self.path.open(encoding="utf-8-sig") as file:
            rows = [(i, row) for i, row in enumerate(file.read().splitlines(), start=1) if i > 1 and row]
        found = [i for i, row in rows if row.partition(",")[0].strip() == name]
        return UserError(f"{self.path}, line {found[nth - 1]}: {what}")

    def _bag(self, name: str, values: str) -> _Bag:
        cells = dict(zip(self._columns[1:], (value.strip() for value in values.split(",")), strict=False))
        for item in CATEGORIES:
            if cells.get(item, "") not in {"1", "-1", "0"}:
                raise self.fault(name, f"{item} is {cells.get(item, '')!r}, not 1, -1 or 0; put it right")
        items = tuple(item for item in CATEGORIES if cells[item] == "1")
        if items and name[0] == "N":
            raise self.fault(name, f"{name} has {items[0]}, but N says that it has no item; put it right")
        kind = "+".join(items) or ("other" if name[0] == "P" else "")
        return _Bag(name[0] == "P", items, kind, any(cells[item] == "0" for item in CATEGORIES))


def _refuse_twins(train: _List, test: _List) -> None:
    """A bag belongs in one row of one list."""
    for table in (train, test):
        if len(set(table.names)) < len(table.names):
            name = next(name for name, times in Counter(table.names).items() if times > 1)
            raise table.fault(name, f"{name} appears twice; keep one row", nth=2)
    both = set(train.names).intersection(test.names)
    if both:
        raise test.fault(min(both), f"{min(both)} is in {train.path} too; a bag trains or is judged, keep one row")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from walking through a million new objects again and again, 40 % of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def box_mask(path: Path, shape: tuple[int, ...], category: str | None = None) -> np.ndarray | None:
    """Draw the boxes of a Pascal VOC file.

    Args:
        path: the XML file; its pixels count from 1, both corners belong to the box.
        shape: H and W of the picture.
        category: draw only boxes of that name; None for all.

    Returns:
        bool [1, H, W], or None where there is no such box.

    Raises:
        UserError: unreadable file, a box that is empty or out of the picture.
    """
    mask = np.zeros((1, *shape), bool)
    for name, (left, top, right, bottom) in _boxes(path):
        if category is None or name.lower() == category.lower():
            box = mask[:, max(0, top - 1) : max(0, bottom), max(0, left - 1) : max(0, right)]
            if not box.size:
                raise UserError(
                    f"{path}: the box {left}, {top}, {right}, {bottom} of {name} covers nothing of the picture "
                    f"({shape[1]}×{shape[0]}); put it right or remove the file"
                )
            box[:] = True
    return mask if mask.any() else None


def _boxes(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Name and left, top, right, bottom of each object."""
    try:
        found = list(ElementTree.parse(path).getroot().iter("object"))
        return [(node.findtext("name", ""), tuple(_corner(node, side) for side in _SIDES)) for node in found]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UserError(f"{path}: the boxes cannot be read ({error}); put the file right or remove it") from error


def _corner(node: ElementTree.Element, side: str) -> int:
    return round(float(node.findtext(f"bndbox/{side}", "")))


def _files(folder: Path, wanted: bool) -> dict[str, str]:
    """Paths in `folder` by name, if they are wanted or lie in folders of it; else nothing, they are <name>.jpg."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {SIXray.where_to_get}")
    with os.scandir(folder) as entries:
        inner = sorted(entry.name for entry in entries if entry.is_dir() and is_seen(entry.name))
    files = {}
    for place in [*inner, *([""] if wanted or inner else [])]:
        with os.scandir(folder / place) as entries:
            for entry in entries:
                stem, _, suffix = entry.name.rpartition(".")
                if suffix == "jpg" and is_seen(entry.name):
                    files[stem] = f"{place}/{entry.name}" if place else entry.name
    return files
