"""Predictions as arrays: no graph, float64 scores, every batch with what came with it."""

import numpy as np
import torch

from anomaly_lab.evaluation.scoring import score_batches, to_arrays
from anomaly_lab.types import Batch, Prediction


def test_arrays_carry_no_graph_and_keep_every_digit() -> None:
    weight = torch.tensor(1 / 3, requires_grad=True)
    scored = to_arrays(Prediction(weight * torch.ones(2), weight * torch.ones(2, 1, 3, 3)))
    assert scored.score.dtype == np.float64
    assert scored.score[0] == float(torch.tensor(1 / 3))
    assert scored.anomaly_map is not None
    assert (scored.anomaly_map.dtype, scored.anomaly_map.shape) == (np.dtype(np.float32), (2, 1, 3, 3))
    assert scored.reconstruction is None


def test_half_precision_maps_become_float32() -> None:
    scored = to_arrays(Prediction(torch.ones(1), torch.full((1, 1, 2, 2), 0.1, dtype=torch.bfloat16)))
    assert scored.anomaly_map is not None
    assert scored.anomaly_map.dtype == np.float32


def test_each_batch_comes_back_with_its_scores() -> None:
    batches = [Batch(image=torch.full((n, 1, 2, 2), float(n)), row=torch.arange(n)) for n in (2, 3)]
    found = list(score_batches(lambda batch: Prediction(batch["image"].mean((1, 2, 3))), batches))
    assert [batch["row"].tolist() for batch, _ in found] == [[0, 1], [0, 1, 2]]
    assert [scored.score.tolist() for _, scored in found] == [[2, 2], [3, 3, 3]]
