"""Sheets of generated images that show what a generator has learnt: interpolations, and mixtures of styles."""

from pathlib import Path

import torch
from torch import Tensor

from anomaly_lab.callbacks.samples import grid, png
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.gan import GenerativeDetector
from anomaly_lab.experiment.run_folder import write_atomic

ROWS, STEPS = 5, 7  # of the sheet of interpolations
SOURCES = 5  # images along each edge of the sheet of mixtures


@torch.no_grad()
def write_sheets(folder: Path, detector: Detector, seed: int) -> None:
    """Write interpolation.png and, if the generator has styles, style_mixing.png.

    The noise comes from generators of its own, which the seed fixes; no other random stream moves.

    Args:
        folder: for the files, `samples` of a run folder.
        detector: the trained detector; one that does not draw from noise vectors has no sheets.
        seed: of the run.

    Examples:
        >>> write_sheets(run / "samples", detector, seed=0)  # doctest: +SKIP
    """
    if not isinstance(detector, GenerativeDetector):
        return
    detector.eval()
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "interpolation.png", png(grid(_interpolation(detector, seed), STEPS)))
    if (mixtures := _style_mixing(detector, seed)) is not None:
        write_atomic(folder / "style_mixing.png", png(grid(mixtures, SOURCES + 1)))


def _interpolation(detector: GenerativeDetector, seed: int) -> Tensor:
    """Return the images of ROWS rows from one drawn image to another, [ROWS · STEPS, C, H, W]."""
    z, other = detector.noise(2 * ROWS, torch.Generator().manual_seed(seed)).chunk(2)
    return detector.between(z, other, STEPS)


def _style_mixing(detector: GenerativeDetector, seed: int) -> Tensor | None:
    """Return the images of the sheet row by row, [(SOURCES + 1)², C, H, W]; None if the generator has no styles.

    The first row has the images that the columns take coarse styles of, after a blank; the first column those that the
    rows take fine styles of.
    """
    coarse, fine = detector.noise(2 * SOURCES, torch.Generator().manual_seed(seed)).chunk(2)
    mixtures = detector.style_mixtures(coarse, fine)
    if mixtures is None:
        return None
    sources = detector.drawn(coarse)
    first = torch.cat([torch.full_like(sources[:1], -1), sources])
    inner = torch.cat([detector.drawn(fine)[:, None], mixtures.reshape(SOURCES, SOURCES, *mixtures.shape[1:])], 1)
    return torch.cat([first, inner.flatten(0, 1)])
