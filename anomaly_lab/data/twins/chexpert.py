"""Synthetic twin of CheXpert: JPEG chest X-rays of several views with the labels of the official lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from anomaly_lab.data.twins.chest import Chest, add_noise, draw_chest, draw_effusion, draw_opacity

FINDINGS = (  # the label columns of the official lists, in their order
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
RELEASE = "CheXpert-v1.0-small"
_STORIES = ("normal",) * 11 + ("opacity",) * 3 + ("effusion",) * 2 + ("heart",) * 2 + ("uncertain", "fracture")
_VIEWS = (("Frontal", "PA"),) * 8 + (("Frontal", "AP"), ("Lateral", ""))
_FIRST_VALID_PATIENT = 64541


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` training pictures, 80 % of them PA views, and a tenth as many for valid.csv.

    Opacities and effusions have a mask, masks/patient#####/study#/view#_frontal.png; enlarged hearts have none.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each picture depends on (seed, its number) only.
        size: number of training pictures.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=3)
        ...     sorted(path.name for path in (Path(folder) / RELEASE).glob("*.csv"))
        ['train.csv', 'valid.csv']
    """
    release = root / RELEASE
    _write_list(release, "train", seed, range(size))
    _write_list(release, "valid", seed, range(1_000_000, 1_000_000 + size // 10))


def _write_list(release: Path, split: str, seed: int, numbers: range) -> None:
    (release / split).mkdir(parents=True)
    lines = [",".join(("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS))]
    first = 1 if split == "train" else _FIRST_VALID_PATIENT
    for count, number in enumerate(numbers):
        rng = np.random.default_rng([seed, number])
        frontal, view = _VIEWS[number % len(_VIEWS)]
        story = _STORIES[7 * (number - number // len(_VIEWS)) % len(_STORIES)]
        patient, study = first + count * 4 // 5, 2 if count % 5 == 1 else 1  # one picture in five is a second study
        name = Path(f"patient{patient:05d}", f"study{study}", f"view1_{frontal.lower()}.jpg")
        chest, mask = _picture(rng, story)
        image = chest.image if view else (chest.image + chest.image[:, ::-1]) / 2  # lateral views superimpose the lungs
        _save(release / split / name, add_noise(rng, image))
        if mask.any() and view and split == "train":
            _save(release / "masks" / name.with_suffix(".png"), (mask * 255).astype(np.uint8))
        findings = _findings(rng, story, sure=split == "valid")
        sex, age = ("Female", "Male")[number % 2], int(rng.integers(18, 91))
        path = f"{RELEASE}/{split}/{name.as_posix()}"
        lines.append(",".join((path, sex, str(age), frontal, view, *(findings.get(f, "") for f in FINDINGS))))
    (release / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _picture(rng: np.random.Generator, story: str) -> tuple[Chest, np.ndarray]:
    """Draw a chest with the findings of its story, and their mask, bool [H, W]."""
    shape = (int(rng.integers(104, 136)), int(rng.integers(110, 146)))
    chest = draw_chest(rng, shape, heart=rng.uniform(1.35, 1.7) if story == "heart" else 1.0)
    if story in {"opacity", "uncertain"}:
        return draw_opacity(rng, chest)
    if story == "effusion":
        return draw_effusion(rng, chest)
    return chest, np.zeros(shape, bool)


def _findings(rng: np.random.Generator, story: str, sure: bool) -> dict[str, str]:
    """Return the cells that are not blank; with `sure`, as labelled by radiologists, all of them, 1 or 0."""
    unsure = "-1.0"
    cells = {
        "normal": {"No Finding": "1.0", "Support Devices": rng.choice(["1.0", "", "0.0"], p=[0.1, 0.8, 0.1])},
        "opacity": {"Lung Opacity": "1.0", "Consolidation": rng.choice(["1.0", unsure, "0.0"])},
        "effusion": {"Pleural Effusion": "1.0", "Lung Opacity": rng.choice(["1.0", ""]), "Pneumothorax": "0.0"},
        "heart": {"Cardiomegaly": "1.0", "Enlarged Cardiomediastinum": rng.choice(["1.0", unsure])},
        "uncertain": {"Edema": unsure, "Pneumonia": unsure},
        "fracture": {"Fracture": "1.0"},
    }[story]
    if story == "opacity" and rng.random() < 0.4:
        cells["Pneumonia"] = "1.0"
    return {f: "1.0" if cells.get(f) == "1.0" else "0.0" for f in FINDINGS} if sure else cells


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=90)
