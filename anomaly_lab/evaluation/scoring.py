"""From a detector's answers to plain arrays: the one way for validation, test, prediction and the galleries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly_lab.types import Batch, Prediction

Score = Callable[[Batch], Prediction]


class Scored(NamedTuple):
    """A batch's predictions as arrays on the host, without a graph.

    Attributes:
        score: float64 [B], higher = more anomalous.
        anomaly_map: float32 [B, 1, *S], or None where the detector has none.
        reconstruction: float32 [B, C, *S] in [-1, 1], or None.
    """

    score: NDArray[np.float64]
    anomaly_map: NDArray[np.float32] | None = None
    reconstruction: NDArray[np.float32] | None = None


def to_arrays(prediction: Prediction) -> Scored:
    """A prediction as arrays.

    Example:
        >>> to_arrays(Prediction(torch.tensor([0.5, 2.0]))).score.tolist()
        [0.5, 2.0]
    """
    score = prediction.anomaly_score.detach().cpu().double().numpy()
    pictures = (prediction.anomaly_map, prediction.reconstruction)
    anomaly_map, reconstruction = (None if p is None else p.detach().cpu().float().numpy() for p in pictures)
    return Scored(score, anomaly_map, reconstruction)


def score_batches(
    score: Score, batches: Iterable[Batch], device: torch.device | str = "cpu"
) -> Iterator[tuple[Batch, Scored]]:
    """Score batch after batch.

    Args:
        score: a detector's `score`.
        batches: with `image` [B, C, *S] in [-1, 1] and whatever else the caller wants back.
        device: where the detector's weights are.

    Yields:
        Each batch as it came, and its scores.
    """
    for batch in batches:
        yield batch, to_arrays(score(Batch(image=batch["image"].to(device))))
