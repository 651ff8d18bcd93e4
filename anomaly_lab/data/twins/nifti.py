"""Synthetic twin of a folder of volumes: FLAIR heads with small lesions, patientNN/{flair,lesion}.nii.gz.

The order of axes, the voxel size and the data type differ between patients. Some patients have no lesion: their mask is
empty.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anomaly_lab.data.readers.geometry import oriented
from anomaly_lab.data.twins.brain import Brain, distance, draw_brain, noise, write_volume

AXCODES = ("RAS", "LAS", "LPS", "PSR", "ASL", "IPL")
TYPES = (np.float32, np.int16, np.uint16)
IN_PLANE, THROUGH = (1.8, 2.4), (2.5, 4.0)  # range of voxel edges in mm: left-right and front-back, vertical
WIDTH = (180.0, 216.0, 168.0)  # field of view in mm: left-right, front-back, vertical
_HEALTHY = 2  # one patient in this many has no lesion


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` / 10 patients, at least 8, half of them with lesions.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each patient depends on (seed, its number) only.
        size: ten times the number of volumes.

    Examples:
        Takes about a second, so this block is not executed:

            write_twin(Path("scans"), seed=0, size=80)
            sorted(Path("scans").glob("*/flair.nii.gz"))  # patient01 to patient08
    """
    for number in range(max(8, size // 10)):
        rng = np.random.default_rng([seed, number])
        spacing = (*rng.uniform(*IN_PLANE, 2).tolist(), rng.uniform(*THROUGH))
        x, y, z = (round(width / edge) for width, edge in zip(WIDTH, spacing, strict=True))
        brain = draw_brain(rng, (x, y, z), spacing)
        lesion = _lesions(rng, brain) if number % _HEALTHY else np.zeros((x, y, z), bool)
        image = (brain.image + rng.uniform(0.4, 0.7) * lesion) * rng.uniform(100, 800)
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = [-width / 2 for width in WIDTH]
        folder = root / f"patient{number + 1:02d}"
        folder.mkdir(parents=True)
        axcodes = AXCODES[number % len(AXCODES)]
        _write(folder / "flair.nii.gz", image.astype(TYPES[number % len(TYPES)]), affine, axcodes)
        _write(folder / "lesion.nii.gz", lesion.astype(np.uint8), affine, axcodes)


def _lesions(rng: np.random.Generator, brain: Brain) -> np.ndarray:
    """Draw several small lesions beside the ventricles, bool [X, Y, Z]."""
    shape = brain.image.shape
    rough = 0.2 * noise(rng, shape, 20)
    lesion = np.zeros(shape, bool)
    for _ in range(rng.integers(5, 12)):
        side = rng.choice([-1, 1])
        centre = (side * rng.uniform(0.25, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.5))
        lesion |= distance(shape, brain.reach, centre, tuple(rng.uniform(0.09, 0.18, 3).tolist())) + rough < 1
    return lesion & (brain.radius < 0.95)


def _write(path: Path, values: np.ndarray, affine: np.ndarray, axcodes: str) -> None:
    turned, turned_affine = oriented(values[None], affine, axcodes)
    write_volume(path, turned[0], turned_affine)
