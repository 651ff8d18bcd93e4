"""Synthetic twin of the Tsukazaki fundus photographs: retinas with disc, vessels and macula, and lids at the border.

Photographs of a patient have one colour, and those of an eye one anatomy and one disease, in other light and slightly
moved, so that a split by photograph leaks as it does on the real data.

Diseases are drawn by a typical sign: dots and blots (DR), flames along a vein (RVO), drusen (AMD), a wide pale cup
(Gla), a round hole (MH), a grey fold (RD), dark spicules at the border (RP), dots everywhere (AO). DM alone is not
visible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from anomaly_lab.data.twins.drawing import ellipse, smooth_noise, soft_step

DISEASES = ("AMD", "RVO", "Gla", "MH", "DR", "RD", "RP", "AO", "DM")  # columns of data.csv
_SETS = (  # diagnoses of a person and their relative frequency, about as in the real list
    ((), 0.35),
    (("DR", "DM"), 0.22),
    (("Gla",), 0.15),
    (("RD",), 0.07),
    (("RVO",), 0.05),
    (("AMD",), 0.04),
    (("DM",), 0.03),
    (("RP",), 0.03),
    (("MH",), 0.02),
    (("Gla", "DR", "DM"), 0.02),
    (("AO",), 0.01),
    (("AMD", "RD"), 0.01),
)
HEIGHT, WIDTH = 120, 160  # pixels; 768 × 1024 in the real data set
_SCALE = 40  # radius of the posterior pole in pixels


class _Eye(NamedTuple):
    """A healthy photograph: image, float32 [H, W, 3]; centres of disc and macula; visibility of the retina, [H, W]."""

    image: np.ndarray
    disc: tuple[float, float]
    macula: tuple[float, float]
    visible: np.ndarray


_Drawing = Callable[[np.random.Generator, _Eye], tuple[np.ndarray, tuple[int, int, int]]]


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` photographs in the official layout, plus masks/<name>.png of the drawn signs.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each photograph depends on (seed, its number) and its patient's number only.
        size: number of photographs; a patient has one to three.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=3)
        ...     sorted(path.name for path in (Path(folder) / "images").iterdir())
        ['000001_00.jpg', '000001_01.jpg', '000002_00.jpg']
    """
    pictures, masks = root / "images", root / "masks"
    pictures.mkdir(parents=True)
    masks.mkdir()
    lines = ["filename,age,sex,LR," + ",".join(DISEASES)]
    for number, (patient, index) in enumerate(_numbers(seed, size)):
        person = np.random.default_rng([seed, patient, 1])
        diagnoses = _diagnoses(person, patient)
        if index == 1 and person.random() < 0.15:
            diagnoses = ()  # sometimes the second eye is healthy
        age, sex = int(person.integers(20, 90)), "MF"[int(person.integers(2))]
        name = f"{patient:06d}_{index:02d}"
        tint = np.random.default_rng([seed, patient, 4]).uniform((110, 85, 20), (160, 130, 50)).astype(np.float32)
        eye = np.random.default_rng([seed, patient, 2 + index % 2])
        image, lesion = _photograph(eye, np.random.default_rng([seed, number]), tint, index % 2, diagnoses)
        Image.fromarray(image).save(pictures / f"{name}.jpg", quality=92)
        if lesion.any():
            Image.fromarray((lesion * 255).astype(np.uint8)).save(masks / f"{name}.png")
        flags = ",".join(str(int(disease in diagnoses)) for disease in DISEASES)
        lines.append(f"{name}.jpg,{age},{sex},{'LR'[index % 2]},{flags}")
    (root / "data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _numbers(seed: int, size: int) -> list[tuple[int, int]]:
    """Return patient and index of every photograph."""
    numbers: list[tuple[int, int]] = []
    patient = 0
    while len(numbers) < size:
        patient += 1
        count = int(np.random.default_rng([seed, patient, 0]).integers(1, 4))
        numbers += [(patient, index) for index in range(count)]
    return numbers[:size]


def _diagnoses(rng: np.random.Generator, patient: int) -> tuple[str, ...]:
    """Draw the diagnoses of a patient; the first patients get one set each, so that a small twin has every disease."""
    if 1 < patient <= len(_SETS):
        return _SETS[patient - 1][0]
    shares = np.array([share for _, share in _SETS])
    return _SETS[int(rng.choice(len(_SETS), p=shares / shares.sum()))][0]


def _photograph(
    anatomy: np.random.Generator,
    moment: np.random.Generator,
    tint: np.ndarray,
    right: int,
    diagnoses: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a photograph, uint8 [H, W, 3], and the mask of its signs of disease, bool [H, W].

    Args:
        anatomy: draws what all photographs of the eye have in common.
        moment: draws what differs between them: light, where the eye looks, noise.
        tint: colour of the retina, [3].
        right: 1 for a right eye, 0 for a left one.
        diagnoses: names of the diseases.
    """
    eye = _eye(anatomy, tint, right)
    image, lesion = eye.image, np.zeros((HEIGHT, WIDTH), bool)
    for disease in diagnoses:
        if disease in _DRAWINGS:
            cover, colour = _DRAWINGS[disease](anatomy, eye)
            cover = cover * eye.visible * anatomy.uniform(0.5, 1)
            image = image + (np.array(colour, np.float32) - image) * cover[..., None]
            lesion |= cover > 0.3
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), moment.normal(0, 1.5), 1)
    turn[:, 2] = turn[:, 2] + moment.normal(0, 1.5, 2)
    image = cv2.warpAffine(image, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE) * moment.uniform(0.9, 1.1)
    lesion = cv2.warpAffine(lesion.astype(np.uint8), turn, (WIDTH, HEIGHT), flags=cv2.INTER_NEAREST) > 0
    image = image + 2.5 * moment.standard_normal(image.shape, np.float32)
    return image.clip(0, 255).astype(np.uint8), lesion


def _eye(rng: np.random.Generator, tint: np.ndarray, right: int) -> _Eye:
    shape = (HEIGHT, WIDTH)
    side = 1 if right else -1  # right and left eyes are mirror images
    middle = (HEIGHT * rng.uniform(0.46, 0.54), WIDTH * rng.uniform(0.46, 0.54))
    disc = (middle[0] + rng.normal(0, 2), middle[1] + side * _SCALE * rng.uniform(0.4, 0.55))
    macula = (middle[0] + rng.normal(2, 2), middle[1] - side * _SCALE * rng.uniform(0.1, 0.2))
    far = ellipse(shape, middle, (HEIGHT * 0.52, WIDTH * 0.5))
    shade = (
        1 - 0.35 * np.clip(far, 0, 1) ** 2 + 0.06 * smooth_noise(rng, shape, 5) + 0.03 * smooth_noise(rng, shape, 18)
    )
    image = tint * shade[..., None]
    image = _blend(image, 0.5 * soft_step(1 - ellipse(shape, macula, (9, 10)), 1.2), (75, 55, 20))
    image = _blend(image, 0.85 * _vessels(rng, disc, side), (85, 40, 25))
    image = _blend(image, soft_step(1 - ellipse(shape, disc, (6, 5)), 0.4), (215, 205, 120))
    visible = soft_step(1 - far + 0.06 * smooth_noise(rng, shape, 6), 0.08)
    lid = np.array([rng.uniform(25, 60), rng.uniform(45, 90), rng.uniform(20, 50)], np.float32)
    lashes = lid * (0.7 + 0.3 * smooth_noise(rng, shape, 9))[..., None] * (far < 1.35)[..., None]
    return _Eye(image * visible[..., None] + lashes * (1 - visible)[..., None], disc, macula, visible)


def _blend(image: np.ndarray, cover: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(image + (np.array(colour, np.float32) - image) * cover[..., None])


def _vessels(rng: np.random.Generator, disc: tuple[float, float], side: int) -> np.ndarray:
    """Draw [H, W] in [0, 1]: arcades of vessels that start at the disc and become thinner."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    cover = np.zeros((HEIGHT, WIDTH), np.float32)
    for up in (-1, 1):
        for out, bend in (
            (-side, rng.uniform(0.5, 0.8)),
            (side, rng.uniform(0.7, 1.1)),
            (-side, rng.uniform(1.2, 1.8)),
        ):
            along = np.maximum(out * (x - disc[1]), 0)
            path = disc[0] + up * bend * _SCALE * (1 - np.exp(-along / _SCALE * 1.6))
            path = path + rng.uniform(0.5, 2) * np.sin(along / rng.uniform(5, 9) + rng.uniform(0, 6))
            width = 1.5 * np.exp(-along / 70)
            slope = 1 + 1.2 * bend * np.exp(-along / _SCALE * 1.6)  # steep pieces are as thin as flat ones
            cover = np.maximum(cover, soft_step(width - np.abs(y - path) / slope, 1) * (along > 0))
    return cover


def _spots(
    rng: np.random.Generator, count: int, centre: tuple[float, float], spread: float, radii: tuple[float, float]
) -> np.ndarray:
    """Draw [H, W] in [0, 1]: round spots scattered around a centre."""
    cover = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(count):
        column, row = centre[1] + rng.normal(0, 1.3 * spread), centre[0] + rng.normal(0, spread)
        where, radius = (round(16 * column), round(16 * row)), round(16 * rng.uniform(*radii))
        cv2.circle(cover, where, radius, 255, -1, cv2.LINE_AA, shift=4)  # fixed-point coordinates, 1/16 pixel
    return cover.astype(np.float32) / 255


def _retinopathy(rng: np.random.Generator, eye: _Eye) -> tuple[np.ndarray, tuple[int, int, int]]:
    return _spots(rng, int(rng.integers(4, 30)), eye.macula, 22, (0.9, 3)), (70, 20, 15)


def _vein(rng: np.random.Generator, eye: _Eye) -> tuple[np.ndarray, tuple[int, int, int]]:
    centre = (eye.disc[0] + rng.choice((-1, 1)) * rng.uniform(12, 24), eye.macula[1] + rng.normal(0, 8))
    return _spots(rng, int(rng.integers(12, 35)), centre, 8, (1, 3)), (90, 15, 10)


def _drusen(rng: np.random.Generator, eye: _Eye) -> tuple[np.ndarray, tuple[int, int, int]]:
    return _spots(rng, int(rng.integers(6, 20)), eye.macula, 4, (0.8, 2.5)), (215, 190, 90)


def _cup(rng: np.random.Generator, eye: _Eye) -> tuple[np.ndarray, tuple[int, int, int]]:
    size = rng.uniform(4.5, 7)
    return soft_step(1 - ellipse((HEIGHT, WIDTH), eye.disc, (size + 1, size)), 0.3), (245, 245, 200)


def _hole(rng: np.random.Generator, eye: _Eye) -> tuple[np.ndarray, tuple[int, int, int]]:
    size = rng.uniform(2.5, 5)
    return soft_step(1 - ellipse((HEIGHT, WIDTH), eye.macula, (size, size)), 0.4), (140, 50, 35)


def _detachment(rng: np.random.Generator, eye: _Eye) -> tuple[np.ndarray, tuple[int, int, int]]:
    angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(38, 55)
    centre = (HEIGHT / 2 + 0.8 * far * math.sin(angle), WIDTH / 2 + far * math.cos(angle))
    radius = ellipse((HEIGHT, WIDTH), centre, (rng.uniform(12, 28), rng.uniform(20, 36)), angle)
    return soft_step(1 - radius + 0.15 * smooth_noise(rng, (HEIGHT, WIDTH), 8), 0.25), (150, 160, 125)


def _spicules(rng: np.random.Generator, eye: _Eye) -> tuple[np.ndarray, tuple[int, int, int]]:
    ring = soft_step(ellipse((HEIGHT, WIDTH), eye.macula, (28, 36)) - 1, 0.4)
    return ring * soft_step(smooth_noise(rng, (HEIGHT, WIDTH), 40) - 0.7, 0.4), (30, 22, 15)


def _haemorrhages(rng: np.random.Generator, eye: _Eye) -> tuple[np.ndarray, tuple[int, int, int]]:
    return _spots(rng, int(rng.integers(20, 50)), (HEIGHT / 2, WIDTH / 2), 26, (0.9, 2.5)), (60, 15, 10)


_DRAWINGS: dict[str, _Drawing] = {
    "AMD": _drusen,
    "RVO": _vein,
    "Gla": _cup,
    "MH": _hole,
    "DR": _retinopathy,
    "RD": _detachment,
    "RP": _spicules,
    "AO": _haemorrhages,
}
