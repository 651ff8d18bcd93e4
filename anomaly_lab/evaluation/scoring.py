"""Convert predictions to NumPy arrays; validation, testing, prediction and galleries all use these functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly_lab.types import Batch, Prediction

Score = Callable[[Batch], Prediction]


class Scored(NamedTuple):
    """Predictions of a batch as NumPy arrays.

    Attributes:
        score: float64 [B], higher = more anomalous.
        anomaly_map: float32 [B, 1, *S], or None where the detector has none.
        reconstruction: float32 [B, C, *S] in [-1, 1], or None.
        probability: float64 [B, K] in [0, 1], of a detector that has learnt K classes, or None.
        components: float64 [B, K], terms of the score, or None.
    """

    score: NDArray[np.float64]
    anomaly_map: NDArray[np.float32] | None = None
    reconstruction: NDArray[np.float32] | None = None
    probability: NDArray[np.float64] | None = None
    components: NDArray[np.float64] | None = None


def to_arrays(prediction: Prediction) -> Scored:
    """Convert a prediction to NumPy arrays, detached and on the CPU.

    Examples:
        >>> to_arrays(Prediction(torch.tensor([0.5, 2.0]))).score.tolist()
        [0.5, 2.0]
    """
    score = prediction.anomaly_score.detach().cpu().double().numpy()
    pictures = (prediction.anomaly_map, prediction.reconstruction)
    anomaly_map, reconstruction = (None if p is None else p.detach().cpu().float().numpy() for p in pictures)
    classes, terms = prediction.probabilities, prediction.components
    probability = None if classes is None else classes.detach().cpu().double().numpy()
    components = None if terms is None else terms.detach().cpu().double().numpy()
    return Scored(score, anomaly_map, reconstruction, probability, components)


def score_batches(
    score: Score, batches: Iterable[Batch], device: torch.device | str = "cpu"
) -> Iterator[tuple[Batch, Scored]]:
    """Score batch after batch.

    Args:
        score: a detector's `score`.
        batches: with `image` [B, C, *S] in [-1, 1]; other entries are passed through.
        device: where the detector's weights are.

    Yields:
        Each batch unchanged, and its scores.

    Examples:
        >>> def mean_brightness(batch: Batch) -> Prediction:
        ...     return Prediction(batch["image"].mean((1, 2, 3)))
        >>> batches = [Batch(image=torch.full((2, 1, 4, 4), value)) for value in (0.0, 0.5)]
        >>> [scored.score.tolist() for _, scored in score_batches(mean_brightness, batches)]
        [[0.0, 0.0], [0.5, 0.5]]
    """
    for batch in batches:
        yield batch, to_arrays(score(Batch(image=batch["image"].to(device))))
