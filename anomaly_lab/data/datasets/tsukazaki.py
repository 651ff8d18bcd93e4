"""Tsukazaki Hospital Optos fundus: 13 047 ultra-wide-field colour photographs of 5 389 people, nine diagnoses.

Layout: `data.csv` (filename, age, sex, LR, AMD, RVO, Gla, MH, DR, RD, RP, AO, DM; the diagnoses are 0 or 1 and several
may apply) and `<6-digit patient>_<2-digit index>.jpg` in the same folder or in its folder `images`. The synthetic twin
adds `masks/<name>.png`. Protocols: "gan" has 872 normal photographs, of which 80 % train, and 1736 anomalous ones;
"gan_balanced" is the same with 866 anomalous ones; 1 to 5 are the supervised tasks. Totals of the list: normal 4364,
DM 3895, DR 3323, Gla 2619, …. DM means diabetes mellitus with or without retinopathy; a study of this data set
interprets it as diabetic macular oedema.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from anomaly_lab.data.datamodule import CROSSING, PatchDataModule
from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.data.readers.tree import is_seen
from anomaly_lab.data.twins.tsukazaki import write_twin
from anomaly_lab.types import Case, Seed, UserError

RAREST_FIRST = ("AO", "MH", "RP", "AMD", "RVO", "RD", "Gla", "DR", "DM")
NORMAL = "normal"
RARE = ("AMD", "RVO", "MH", "RD", "RP", "AO")  # diseases of task 4; those of task 5 without AO
TASKS = ("gan", "gan_balanced", "1", "2", "3", "4", "5")
_SAMPLES = {"gan": (872, 1736), "gan_balanced": (872, 866)}  # number of normal and of anomalous photographs
_NAME = re.compile(r"(\d{6})_\d{2}", re.ASCII)
_SUFFIXES = (".jpg", ".jpeg", ".png")


class _Photo(NamedTuple):
    """A row of data.csv and its picture."""

    name: str
    patient: str
    picture: Path
    diagnoses: frozenset[str]


class Tsukazaki(PatchDataModule):
    """Fundus photographs; both eyes and all visits of a person stay in one split.

    Examples:
        >>> import tempfile
        >>> data = Tsukazaki(root="none", source="twin", task="2")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=12)
        ...     sorted({case.class_name for case in data.cases(Path(folder))})
        ['DR', 'Gla', 'normal']
    """

    name = "tsukazaki"
    where_to_get = (
        "get the Tsukazaki Optos Public data set (tsukazaki-eye.net) and lay it out as data.csv next to a folder "
        "images with 000001_00.jpg and the other photographs"
    )
    twin_version = 2
    version = 1
    official: ClassVar[dict[str, int]] = {
        "images": 13047,
        NORMAL: 4364,
        "AMD": 413,
        "RVO": 778,
        "Gla": 2619,
        "MH": 222,
        "DR": 3323,
        "RD": 974,
        "RP": 258,
        "AO": 21,
        "DM": 3895,
    }

    def __init__(
        self,
        *,
        task: Literal["gan", "gan_balanced", "1", "2", "3", "4", "5"] | int = "gan",
        disease: Literal["AMD", "RVO", "MH", "RD", "RP", "AO"] = "AMD",
        several: Literal["by task", "rarest", "drop"] = "by task",
        image_level: bool = False,
        sample_seed: Seed = 0,
        **arguments: Any,
    ) -> None:
        """Set the options of this data set.

        Args:
            task: "gan" or "gan_balanced", or a supervised task: 1 normal or abnormal; 2 normal, Gla, DR (pictures with
                both diagnoses are left out); 3 normal and nine classes; 4 `disease` and as many normals; 5 AMD, RVO,
                MH, RD, RP. To train on them: `supervision=labels` and `classes`, such as [normal,Gla,DR].
            disease: the disease of task 4.
            several: what becomes of a picture with several diagnoses of the task: "rarest" makes the rarest its class,
                "drop" leaves it out, "by task" drops in task 2 and takes the rarest in the others. With
                `target_type=multilabel` it keeps them all.
            image_level: split by picture, as published, although the eyes of a person may then be in two splits.
            sample_seed: seed for the selection of pictures in "gan", "gan_balanced" and 4; `seed` splits the selection.
            **arguments: arguments of PatchDataModule.
        """
        if str(task) not in TASKS:
            raise UserError(f"data.task={task}: takes one of {', '.join(TASKS)}")
        if disease not in RARE:
            raise UserError(f"data.disease={disease}: takes one of {', '.join(RARE)}")
        self.task, self.disease, self.several = str(task), disease, several
        self.image_level, self.sample_seed = image_level, sample_seed
        super().__init__(**arguments)

    def cases(self, root: Path) -> list[Case]:
        """List the pictures of the task with their classes, in the order of their names.

        Raises:
            UserError: a row is faulty, a picture has no row, or a row has no picture.
        """
        photos = _photos(root, self.where_to_get)
        class_names = {
            photo: class_name for photo in photos if (class_name := self._class_name(photo.diagnoses)) is not None
        }
        masks = {path.stem: path for path in (root / "masks").glob("*.png") if is_seen(path.name)}
        return [
            Case(
                id=photo.name,
                patient=photo.name if self.image_level else photo.patient,
                image=photo.picture,
                label=int(class_names[photo] != NORMAL),
                mask=masks.get(photo.name),
                class_name=class_names[photo],
            )
            for photo in sorted(self._drawn(class_names))
        ]

    @property
    def caveats(self) -> tuple[str, ...]:
        """Add that the eyes of a person may be in two splits, if pictures are split."""
        return (*super().caveats, *((CROSSING,) if self.image_level else ()))

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count all pictures of the list, whether the task uses them or not."""
        photos = _photos(self.folder, self.where_to_get)
        counts = {disease: sum(disease in photo.diagnoses for photo in photos) for disease in RAREST_FIRST}
        return {"images": len(photos), NORMAL: sum(not photo.diagnoses for photo in photos)} | counts

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic photographs in the official layout."""
        write_twin(root, seed, size)

    def _class_name(self, diagnoses: frozenset[str]) -> str | None:
        """Return the class of a picture in the task; None to leave it out."""
        wanted = {"2": ("Gla", "DR"), "4": (self.disease,), "5": RARE[:-1]}.get(self.task, RAREST_FIRST)
        if not diagnoses:
            return NORMAL if self.task != "5" else None
        found = [disease for disease in RAREST_FIRST if disease in diagnoses and disease in wanted]
        if self.learns_each_class and found:
            return "+".join(disease for disease in RAREST_FIRST if disease in diagnoses)
        if self.task == "1":
            return "abnormal"
        drops = self.several == "drop" or (self.several == "by task" and self.task == "2")
        return None if not found or (drops and len(found) > 1) else found[0]

    def _drawn(self, class_names: dict[_Photo, str]) -> list[_Photo]:
        """Return all pictures, or a random selection of as many normal and anomalous ones as the task has."""
        normal = [photo for photo, class_name in class_names.items() if class_name == NORMAL]
        anomalous = [photo for photo, class_name in class_names.items() if class_name != NORMAL]
        sizes = (len(anomalous), len(anomalous)) if self.task == "4" else _SAMPLES.get(self.task)
        if sizes is None:
            return [*normal, *anomalous]
        patients = {photo.patient for photo in anomalous}
        rng = np.random.default_rng(self.sample_seed)
        drawn = _sample(rng, anomalous, sizes[1])
        healthy = _sample(rng, [photo for photo in normal if photo.patient not in patients], sizes[0])
        others = _sample(rng, [photo for photo in normal if photo.patient in patients], sizes[0] - len(healthy))
        return [*healthy, *others, *drawn]


def _sample(rng: np.random.Generator, photos: list[_Photo], count: int) -> list[_Photo]:
    """Return at most `count` random pictures: one of every patient before a second of any patient."""
    turns: dict[str, int] = defaultdict(int)
    queue = []
    for i in rng.permutation(len(photos)):
        queue.append((turns[photos[i].patient], photos[i]))
        turns[photos[i].patient] += 1
    queue.sort(key=lambda entry: entry[0])
    return [photo for _, photo in queue[: max(0, count)]]


def _photos(root: Path, where_to_get: str) -> list[_Photo]:
    """Match the rows of data.csv with the pictures."""
    path = root / "data.csv"
    rows = _rows(path)
    listed = {folder: _pictures(folder) for folder in (root / "images", root)}
    folder = next((folder for folder in listed if listed[folder]), None)
    if folder is None:
        raise UserError(f"{root}: no pictures here or in the folder images; {where_to_get}")
    pictures = listed[folder]
    for fault, names in (
        ("rows without a picture", rows.keys() - pictures.keys()),
        ("pictures without a row", pictures.keys() - rows.keys()),
    ):
        if names:
            raise UserError(f"{path}: {fault} in {folder}: {', '.join(sorted(names)[:5])}; complete the data set")
    return [_Photo(name, name[:6], pictures[name], diagnoses) for name, diagnoses in rows.items()]


def _pictures(folder: Path) -> dict[str, Path]:
    """Return the pictures with a name of the official form, by name."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return {path.stem: path for path in paths if path.suffix.lower() in _SUFFIXES and _NAME.fullmatch(path.stem)}


def _rows(path: Path) -> dict[str, frozenset[str]]:
    """Read data.csv as {"000001_00": {"DR", "DM"}, …}."""
    rows: dict[str, frozenset[str]] = {}
    for place, cells in read_table(path, ("filename", *RAREST_FIRST)):
        name = Path(cells["filename"]).stem
        if not _NAME.fullmatch(name):
            raise UserError(f"{place}: {cells['filename']!r} is not <6-digit patient>_<2-digit index>; correct it")
        if name in rows:
            raise UserError(f"{place}: {name} appears twice; keep one row")
        wrong = [disease for disease in RAREST_FIRST if cells[disease] not in {"0", "1"}]
        if wrong:
            raise UserError(f"{place}: {wrong[0]} is {cells[wrong[0]]!r}, not 0 or 1; correct it")
        rows[name] = frozenset(disease for disease in RAREST_FIRST if cells[disease] == "1")
    return rows
