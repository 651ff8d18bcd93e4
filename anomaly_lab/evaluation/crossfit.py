"""Cross-fitted normals: scores of training normals by fits that never saw them, as a reference for thresholds.

A method that is fitted in seconds needs no held-out normals to set its threshold: with k folds each normal is scored by
a fit on the others, and the method in use is fitted on all of them (Vovk 2015, Annals of Mathematics and Artificial
Intelligence 74, 9-28, cross-conformal predictors). Eight held-out normals become as many as there are to train on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anomaly_lab.metrics.ranking import Floats
from anomaly_lab.types import UserError

FOLDS = 10
Score = Callable[[Tensor], dict[str, Floats]]  # images [n, C, *S] -> name -> scores [n]
Progress = Callable[[int, int], object]


def folds(patient: Sequence[str]) -> NDArray[np.intp]:
    """Return the fold of each case, [n]: whole patients, consecutive by name, since neighbours may be one person.

    Examples:
        >>> folds(["a", "a", "b", "c"]).tolist()  # no more folds than patients
        [0, 0, 1, 2]
        >>> np.bincount(folds([f"{i:02}" for i in range(25)])).tolist()
        [3, 2, 3, 2, 3, 2, 3, 2, 3, 2]
    """
    names, row = np.unique(np.asarray(patient), return_inverse=True)
    number = min(FOLDS, len(names))
    return (np.arange(len(names)) * number // len(names))[row]


def cross_fitted(
    images: Tensor,
    patient: Sequence[str],
    fit: Callable[[NDArray[np.bool_]], Score],
    progress: Progress = lambda *_: None,
) -> dict[str, Floats]:
    """Score each image by a fit on the images of other folds.

    Args:
        images: training images, [n, C, *S].
        patient: patient of each.
        fit: fits a method to some of the images, given as a mask [n], and returns what scores others.
        progress: is told how many fits are done, and of how many.

    Returns:
        name -> scores [n], of the names that the fits give.

    Raises:
        UserError: all images are of one patient.

    Examples:
        >>> import torch
        >>> images = torch.tensor([0.0, 1.0, 5.0]).view(3, 1, 1, 1)
        >>> def fit(kept):
        ...     mean = images[kept].mean()
        ...     return lambda image: {"distance": (image.flatten(1).mean(1) - mean).abs().numpy()}
        >>> cross_fitted(images, ["a", "b", "c"], fit)["distance"].tolist()
        [3.0, 1.5, 4.5]
    """
    fold = folds(patient)
    if len(set(fold.tolist())) < 2:
        raise UserError("evaluation.reference=crossfit needs training normals of two patients or more; use validation")
    found: dict[str, Floats] = {}
    for number in range(count := int(fold.max()) + 1):
        held_out = fold == number
        for name, scores in fit(~held_out)(images[held_out]).items():
            found.setdefault(name, np.full(len(fold), np.nan))[held_out] = scores
        progress(number + 1, count)
    return found
