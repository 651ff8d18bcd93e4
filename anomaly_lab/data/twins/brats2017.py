"""Synthetic twin of BraTS 2017: skull-stripped FLAIR heads with 1 mm pixels, each with a glioma of three labels.

Slices are 5 mm thick, so there are a fifth as many as in the real data set and a subject takes a tenth of a second. As
in the real data set, the scale of the grey levels varies between scanners, X points to the left and Y to the back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anomaly_lab.data.twins.brain import Brain, distance, draw_brain, noise, write_volume

SHAPE, SPACING = (240, 240, 31), (1.0, 1.0, 5.0)
BOX = (152, 188, 27)  # size of the central box that contains the brain, in voxels
SITES = ("2013", "CBICA", "TCIA", "TCGA_DU")
_LOW_GRADE = 4  # one subject in this many is LGG
_NECROSIS, _OEDEMA, _ENHANCING = 1, 2, 4
_GREY = {_NECROSIS: 0.75, _OEDEMA: 1.25, _ENHANCING: 1.12}  # brightness relative to healthy tissue


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` / 10 HGG subjects, at least 6, and a third as many LGG subjects, FLAIR and segmentation only.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each subject depends on (seed, its number) only.
        size: about ten times the number of subjects that are read by default.

    Examples:
        Takes about a second, so this block is not executed:

            write_twin(Path("brats"), seed=0, size=60)
            sorted(Path("brats").rglob("*_flair.nii.gz"))  # 6 of HGG and 2 of LGG
    """
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[1, 3] = SPACING[1] * (SHAPE[1] - 1)
    for number in range(max(6, size // 10) * _LOW_GRADE // (_LOW_GRADE - 1)):
        rng = np.random.default_rng([seed, number])
        low = number % _LOW_GRADE == _LOW_GRADE - 1
        name = f"Brats17_{SITES[number % len(SITES)]}_{number:03d}_1"
        folder = root / "MICCAI_BraTS17_Data_Training" / ("LGG" if low else "HGG") / name
        folder.mkdir(parents=True)
        image, labels = _subject(rng)
        write_volume(folder / f"{name}_flair.nii.gz", image, affine)
        write_volume(folder / f"{name}_seg.nii.gz", labels, affine)


def _subject(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw FLAIR, int16, and labels, uint8, both [X, Y, Z]."""
    brain = draw_brain(rng, BOX, SPACING)
    labels = _glioma(rng, brain)
    grey = np.ones(BOX, np.float32)
    for label, level in _GREY.items():
        grey[labels == label] = level * rng.uniform(0.95, 1.1)
    image = brain.image * grey * rng.uniform(150, 900) + (brain.radius < 1)  # so that no voxel of the brain is 0
    margin = [((side - drawn) // 2, side - drawn - (side - drawn) // 2) for side, drawn in zip(SHAPE, BOX, strict=True)]
    return np.pad(np.rint(image).astype(np.int16), margin), np.pad(labels, margin)


def _glioma(rng: np.random.Generator, brain: Brain) -> np.ndarray:
    """Draw labels, uint8 [X, Y, Z]: necrosis within enhancing tissue within oedema."""
    towards = rng.normal(size=3)
    centre = tuple((towards / np.linalg.norm(towards) * rng.uniform(0.3, 0.6)).tolist())
    within = distance(BOX, brain.reach, centre, tuple(rng.uniform(0.32, 0.55, 3).tolist()))
    within += 0.15 * noise(rng, BOX, 9)
    labels = np.zeros(BOX, np.uint8)
    core = rng.uniform(0.35, 0.6)
    for label, radius in ((_OEDEMA, 1.0), (_ENHANCING, core), (_NECROSIS, 0.7 * core)):
        labels[(within < radius) & (brain.radius < 0.98)] = label
    return labels
