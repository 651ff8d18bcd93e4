"""SIXray10, 100 and 1000 (Miao et al. 2019, CVPR): 1 059 231 X-ray pictures of bags, 8929 with a prohibited item.

Layout: `JPEGImage/<name>.jpg` (or in folders within JPEGImage), `ImageSet/{10,100,1000}/{train,test}.csv` with the
columns name, Gun, Knife, Wrench, Pliers, Scissors (1 present, -1 absent, 0 uncertain), and for some of the bags with an
item `Annotation/<name>.xml` (Pascal VOC), whose boxes are the mask. A bag P##### has an item, a bag N####### has none.
A bag P##### with none of the five items contains a hammer, which the lists do not name; its class is "other". Expected
counts are those of the official lists.
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
TOTALS = {10: (98219, 8929), 100: (901829, 8929), 1000: (1051302, 1000)}  # number of bags, number with an item
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NAME = re.compile(r"P\d{5}|N\d{7}", re.ASCII)
_LISTS = (
    "get the lists from the authors' page (github.com/MeioJane/SIXray) and lay them out as ImageSet/10/train.csv, set "
    "data.train_list and data.test_list to your own lists, or read pictures without lists with the data set `folder`"
)


class SIXray(PatchDataModule):
    """X-ray pictures of bags, one picture per bag; the lists determine the split.

    Examples:
        >>> import tempfile
        >>> data = SIXray(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=20)
        ...     cases = data.cases(Path(folder))
        >>> len(cases), sum(case.label for case in cases)
        (12, 4)
    """

    name = "sixray"
    where_to_get = (
        "get SIXray (github.com/MeioJane/SIXray), unpack its parts to JPEGImage/P00001.jpg and the others, and lay the "
        "lists out as ImageSet/10/train.csv"
    )
    twin_version = 2
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
        """Set the options of this data set.

        Args:
            subset: 10, 100 or 1000, the number of bags without an item per bag with one.
            category: the only item that counts as anomalous; bags with other items only are left out; None for any
                item. Bags N with an uncertain item are left out, unless items are learnt as classes of their own
                (`supervision=labels`, `target_type=multilabel`): then uncertain items are unknown.
            train_list, test_list: CSV lists, relative to `root`, that replace those of the subset.
            check: search every picture at the start; otherwise a missing one is an error when it is read.
            **arguments: arguments of PatchDataModule.
        """
        if subset not in SUBSETS:
            raise UserError(f"data.subset={subset}: takes one of {', '.join(map(str, SUBSETS))}")
        if category is not None and category not in CATEGORIES:
            raise UserError(f"data.category={category}: takes one of {', '.join(CATEGORIES)}, or null for any")
        self.subset, self.category, self.check = subset, category, check
        self.lists = {
            "train": train_list or f"ImageSet/{subset}/train.csv",
            "test": test_list or f"ImageSet/{subset}/test.csv",
        }
        self._tally: Counter[tuple[str, _Bag]] = Counter()
        super().__init__(**arguments)

    def cases(self, root: Path) -> list[Case]:
        """List the bags in the order of the lists; the class name joins their items, as in "Gun+Knife".

        Raises:
            UserError: a list is missing or faulty, a bag is listed twice, or, with `check`, a picture is missing.
        """
        lists = {split: _List(root / path) for split, path in self.lists.items()}
        folder = root / "JPEGImage"
        files = _files(folder, self.check)
        boxes = {path.stem: path for path in (root / "Annotation").glob("*.xml") if is_seen(path.name)}
        _validate_unique(lists["train"], lists["test"])
        self._tally = Counter()
        cases = []
        with _without_garbage_collection():
            for split, table in lists.items():
                for name, bag in table.rows():
                    if self.check and name not in files:
                        raise table.fault(name, f"no picture {name}.jpg in {folder}; complete the data set")
                    self._tally[split, bag] += 1
                    label = self._label(bag)
                    if label is not None:
                        image = folder / files.get(name, f"{name}.jpg")
                        mask = boxes.get(name) if label else None
                        cases.append(Case(name, name, image, label, mask, bag.class_name, split, unknown=bag.uncertain))
        self._validate_totals(root)
        return cases

    def read(self, case: Case) -> Scan:
        """Read a bag; its boxes, if it has any, are the mask."""
        scan = super().read(replace(case, mask=None))
        if case.mask is None:
            return scan
        return replace(scan, mask=box_mask(case.mask, scan.shape, self.category))

    def protocol(self) -> dict[str, Any]:
        """Return the options that change the masks."""
        return super().protocol() | {"category": self.category}

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count all bags in the lists, by label, split and item, including those that `category` leaves out."""
        counts: Counter[str] = Counter()
        for (split, bag), n in self._tally.items():
            for name in ("images", "anomalous" if bag.anomalous else "normal", split, *bag.items):
                counts[name] += n
        return dict(counts)

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic bags in the official layout."""
        write_twin(root, seed, size)

    def facts(self) -> dict[str, Any]:
        """Add the expected counts of the official lists."""
        images, anomalous = TOTALS[self.subset]
        return super().facts() | {"official": {"images": images, "anomalous": anomalous}}

    def _label(self, bag: _Bag) -> int | None:
        """Return the label, 0 or 1; None to leave the bag out."""
        if not bag.anomalous:
            return None if bag.uncertain and not self.learns_each_class else 0
        return 1 if self.category is None or self.category in bag.items else None

    def _validate_totals(self, root: Path) -> None:
        """Raise UserError if the lists are as long as the official ones but have another number of anomalous bags."""
        counts = self.census(())
        images, anomalous = TOTALS[self.subset]
        if counts.get("images") == images and counts.get("anomalous") != anomalous:
            raise UserError(
                f"{root / self.lists['train']}: of the {images} bags listed here and in the test list "
                f"{counts.get('anomalous', 0)} are P, where SIXray{self.subset} has {anomalous}; "
                "download the lists again"
            )


class _Bag(NamedTuple):
    """Content of a row: P or N, the certain items, the class name joined from them, and the uncertain items."""

    anomalous: bool
    items: tuple[str, ...]
    class_name: str
    uncertain: tuple[str, ...]


class _List:
    """A validated CSV list; to keep a million rows small, rows with the same values share one _Bag.

    Attributes:
        path: the file.
        names: names of the bags, in the order of the file.
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
            raise UserError(f"{path}: its header is {first!r}, not name,{','.join(CATEGORIES)}; correct it")
        self._lines = [line for line in lines if line]
        self.names = [line.partition(",")[0].strip() for line in self._lines]
        if not all(map(_NAME.fullmatch, self.names)):
            name = next(name for name in self.names if not _NAME.fullmatch(name))
            raise self.fault(name, f"{name!r} is not P and five digits or N and seven; correct it")

    def rows(self) -> Iterator[tuple[str, _Bag]]:
        """Yield name and content of each row."""
        bags: dict[tuple[str, str], _Bag] = {}
        for name, line in zip(self.names, self._lines, strict=True):
            key = name[0], line.partition(",")[2]
            bag = bags.get(key)
            if bag is None:
                bag = bags[key] = self._bag(name, key[1])
            yield name, bag

    def fault(self, name: str, message: str, nth: int = 1) -> UserError:
        """Return the error about the nth row of a bag."""
        with self.path.open(encoding="utf-8-sig") as file:
            rows = [(i, row) for i, row in enumerate(file.read().splitlines(), start=1) if i > 1 and row]
        lines = [i for i, row in rows if row.partition(",")[0].strip() == name]
        return UserError(f"{self.path}, line {lines[nth - 1]}: {message}")

    def _bag(self, name: str, values: str) -> _Bag:
        cells = dict(zip(self._columns[1:], (value.strip() for value in values.split(",")), strict=False))
        for item in CATEGORIES:
            if cells.get(item, "") not in {"1", "-1", "0"}:
                raise self.fault(name, f"{item} is {cells.get(item, '')!r}, not 1, -1 or 0; correct it")
        items = tuple(item for item in CATEGORIES if cells[item] == "1")
        if items and name[0] == "N":
            raise self.fault(name, f"{name} has {items[0]}, but N means that it has no item; correct it")
        class_name = "+".join(items) or ("other" if name[0] == "P" else "")
        uncertain = tuple(item for item in CATEGORIES if cells[item] == "0")
        return _Bag(name[0] == "P", items, class_name, uncertain)


def _validate_unique(train: _List, test: _List) -> None:
    """Raise UserError if a bag has several rows."""
    for table in (train, test):
        if len(set(table.names)) < len(table.names):
            name = next(name for name, times in Counter(table.names).items() if times > 1)
            raise table.fault(name, f"{name} appears twice; keep one row", nth=2)
    shared = set(train.names).intersection(test.names)
    if shared:
        raise test.fault(min(shared), f"{min(shared)} is also in {train.path}; keep one of the rows")


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector, which takes 40 % of the time while a million objects are created."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def box_mask(path: Path, shape: tuple[int, ...], category: str | None = None) -> np.ndarray | None:
    """Draw the boxes of a Pascal VOC file as a mask.

    Args:
        path: the XML file; pixels are counted from 1, and both corners belong to the box.
        shape: H and W of the picture.
        category: draw only boxes of that name; None for all.

    Returns:
        bool [1, H, W], or None if there is no such box.

    Raises:
        UserError: the file is unreadable, or a box is empty or outside the picture.

    Examples:
        >>> import tempfile
        >>> box = "<xmin>2</xmin><ymin>1</ymin><xmax>3</xmax><ymax>1</ymax>"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "P00001.xml"
        ...     _ = path.write_text(f"<a><object><name>Gun</name><bndbox>{box}</bndbox></object></a>")
        ...     box_mask(path, (2, 4)).astype(int).tolist()
        [[[0, 1, 1, 0], [0, 0, 0, 0]]]
    """
    mask = np.zeros((1, *shape), bool)
    for name, (left, top, right, bottom) in _boxes(path):
        if category is None or name.lower() == category.lower():
            box = mask[:, max(0, top - 1) : max(0, bottom), max(0, left - 1) : max(0, right)]
            if not box.size:
                raise UserError(
                    f"{path}: the box {left}, {top}, {right}, {bottom} of {name} covers nothing of the picture "
                    f"({shape[1]}×{shape[0]}); correct it or remove the file"
                )
            box[:] = True
    return mask if mask.any() else None


def _boxes(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Return name and (left, top, right, bottom) of each object."""
    try:
        objects = list(ElementTree.parse(path).getroot().iter("object"))
        return [(node.findtext("name", ""), tuple(_corner(node, side) for side in _SIDES)) for node in objects]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UserError(f"{path}: the boxes cannot be read ({error}); correct the file or remove it") from error


def _corner(node: ElementTree.Element, side: str) -> int:
    return round(float(node.findtext(f"bndbox/{side}", "")))


def _files(folder: Path, wanted: bool) -> dict[str, str]:
    """Return the pictures below `folder` by name.

    Pictures directly in `folder` are listed only if `wanted` or if it has sub-folders, because their path follows from
    their name.
    """
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
