"""Tsukazaki Hospital Optos fundus: 13 047 ultra-wide-field colour photographs of 5 389 people, nine diagnoses.

Layout: `data.csv` (filename, age, sex, LR, AMD, RVO, Gla, MH, DR, RD, RP, AO, DM; 0/1, several may hold) and
`<6-digit patient>_<2-digit index>.jpg`, in a folder `images` beside it or next to it. The twin adds `masks/<name>.png`.
Protocols (DATASETS §10): "gan" 872 normal, 80 % of them train, and 1736 anomalous; "gan_balanced" the same with 866;
1 to 5 the supervised tasks. Sums of the whole list: normal 4364, DM 3895, DR 3323, Gla 2619, ….
DM is diabetes mellitus with or without retinopathy; a study of this set reads it as diabetic macular oedema.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.data.readers.tree import is_seen
from anomaly_lab.data.twins.tsukazaki import write_twin
from anomaly_lab.types import Case, Seed, UserError

RAREST_FIRST = ("AO", "MH", "RP", "AMD", "RVO", "RD", "Gla", "DR", "DM")
NORMAL = "normal"
RARE = ("AMD", "RVO", "MH", "RD", "RP", "AO")  # of task 4; without AO, of task 5
TASKS = ("gan", "gan_balanced", "1", "2", "3", "4", "5")
_SAMPLES = {"gan": (872, 1736), "gan_balanced": (872, 866)}  # normal, anomalous
_NAME = re.compile(r"(\d{6})_\d{2}", re.ASCII)
_SUFFIXES = (".jpg", ".jpeg", ".png")


class _Photo(NamedTuple):
    """A row of data.csv whose picture is there."""

    name: str
    patient: str
    picture: Path
    diagnoses: frozenset[str]


class Tsukazaki(PatchDataModule):
    """Fundus photographs; both eyes and all visits of a person stay in one split."""

    name = "tsukazaki"
    where_to_get = (
        "get the Tsukazaki Optos Public data set (tsukazaki-eye.net) and lay it out as data.csv beside a folder "
        "images with 000001_00.jpg and the others"
    )
    twin_version = 1
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
        image_level: bool = False,
        sample_seed: Seed = 0,
        **arguments: Any,
    ) -> None:
        """Set the options of this data set; all others are PatchDataModule's.

        Args:
            task: "gan" or "gan_balanced", or a supervised task: 1 normal or not; 2 normal, Gla, DR (pictures with both
                left out); 3 normal and nine classes; 4 `disease` and as many normals; 5 AMD, RVO, MH, RD, RP. A
                picture with several diagnoses of the task counts as the rarest of them.
            disease: of task 4.
            image_level: split by picture, as published, though eyes of one person then stand on both sides.
            sample_seed: of the draw of pictures in "gan", "gan_balanced" and 4; `seed` only splits what was drawn.
            **arguments: of PatchDataModule.
        """
        if str(task) not in TASKS:
            raise UserError(f"data.task={task}: there is no such task, take one of {', '.join(TASKS)}")
        if disease not in RARE:
            raise UserError(f"data.disease={disease}: task 4 takes one of {', '.join(RARE)}")
        self.task, self.disease = str(task), disease
        self.image_level, self.sample_seed = image_level, sample_seed
        super().__init__(**arguments)

    def cases(self, root: Path) -> list[Case]:
        """List the pictures of the task with their classes, in the order of their names.

        Raises:
            UserError: a faulty row, pictures without a row or rows without a picture.
        """
        photos = _photos(root, self.where_to_get)
        kinds = {photo: kind for photo in photos if (kind := self._kind(photo.diagnoses)) is not None}
        masks = {path.stem: path for path in (root / "masks").glob("*.png") if is_seen(path.name)}
        return [
            Case(
                id=photo.name,
                patient=photo.name if self.image_level else photo.patient,
                image=photo.picture,
                label=int(kinds[photo] != NORMAL),
                mask=masks.get(photo.name),
                class_name=kinds[photo],
            )
            for photo in sorted(self._drawn(kinds))
        ]

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count the whole list, whatever the task takes of it."""
        photos = _photos(self.folder, self.where_to_get)
        counts = {disease: sum(disease in photo.diagnoses for photo in photos) for disease in RAREST_FIRST}
        return {"images": len(photos), NORMAL: sum(not photo.diagnoses for photo in photos)} | counts

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic photographs of the same layout."""
        write_twin(root, seed, size)

    def _kind(self, diagnoses: frozenset[str]) -> str | None:
        """Class of a picture in the task; None where the task has none for it."""
        if self.task == "1":
            return "abnormal" if diagnoses else NORMAL
        if self.task == "2" and {"Gla", "DR"} <= diagnoses:
            return None
        wanted = {"2": ("Gla", "DR"), "4": (self.disease,), "5": RARE[:-1]}.get(self.task, RAREST_FIRST)
        if not diagnoses and self.task != "5":
            return NORMAL
        return next((disease for disease in RAREST_FIRST if disease in diagnoses and disease in wanted), None)

    def _drawn(self, kinds: dict[_Photo, str]) -> list[_Photo]:
        """All pictures, or the number of normal and anomalous ones that the task takes."""
        normal = [photo for photo, kind in kinds.items() if kind == NORMAL]
        anomalous = [photo for photo, kind in kinds.items() if kind != NORMAL]
        sizes = (len(anomalous), len(anomalous)) if self.task == "4" else _SAMPLES.get(self.task)
        if sizes is None:
            return [*normal, *anomalous]
        ill = {photo.patient for photo in anomalous}
        rng = np.random.default_rng(self.sample_seed)
        drawn = _by_turns(rng, anomalous, sizes[1])
        throughout = _by_turns(rng, [photo for photo in normal if photo.patient not in ill], sizes[0])
        rest = _by_turns(rng, [photo for photo in normal if photo.patient in ill], sizes[0] - len(throughout))
        return [*throughout, *rest, *drawn]


def _by_turns(rng: np.random.Generator, photos: list[_Photo], count: int) -> list[_Photo]:
    """At most `count` at random: one of every patient before a second of any."""
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
        raise UserError(f"{root}: no pictures in it or in its folder images; {where_to_get}")
    pictures = listed[folder]
    for fault, names in (
        ("rows without a picture", rows.keys() - pictures.keys()),
        ("pictures without a row", pictures.keys() - rows.keys()),
    ):
        if names:
            raise UserError(f"{path}: {fault} in {folder}: {', '.join(sorted(names)[:5])}; complete the data set")
    return [_Photo(name, name[:6], pictures[name], diagnoses) for name, diagnoses in rows.items()]


def _pictures(folder: Path) -> dict[str, Path]:
    """Those that are named like the set's, by name."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return {path.stem: path for path in paths if path.suffix.lower() in _SUFFIXES and _NAME.fullmatch(path.stem)}


def _rows(path: Path) -> dict[str, frozenset[str]]:
    """Read data.csv as {"000001_00": {"DR", "DM"}, …}."""
    rows: dict[str, frozenset[str]] = {}
    for place, cells in read_table(path, ("filename", *RAREST_FIRST)):
        name = Path(cells["filename"]).stem
        if not _NAME.fullmatch(name):
            raise UserError(f"{place}: {cells['filename']!r} is not <6-digit patient>_<2-digit index>; put it right")
        if name in rows:
            raise UserError(f"{place}: {name} appears twice; keep one row")
        wrong = [disease for disease in RAREST_FIRST if cells[disease] not in {"0", "1"}]
        if wrong:
            raise UserError(f"{place}: {wrong[0]} is {cells[wrong[0]]!r}, not 0 or 1; put it right")
        rows[name] = frozenset(disease for disease in RAREST_FIRST if cells[disease] == "1")
    return rows
