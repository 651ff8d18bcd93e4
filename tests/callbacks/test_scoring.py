"""Scores by row, whatever the order they came in."""

import pytest
import torch

from anomaly_lab.callbacks.scoring import Scoring
from anomaly_lab.types import Batch, Prediction


def said(rows: list[int], mask: bool = False) -> tuple[Prediction, Batch]:
    n = len(rows)
    batch = Batch(row=torch.tensor(rows))
    if mask:
        batch["mask"] = torch.zeros(n, 1, 2, 2, dtype=torch.bool)
    return Prediction(torch.tensor(rows) / 10, torch.tensor(rows).reshape(n, 1, 1, 1).expand(n, 1, 2, 2)), batch


@pytest.mark.parametrize("mask", [False, True])
def test_gathered_by_row(mask: bool) -> None:
    scoring = Scoring()
    for rows in ([5, 2], [9], [1, 4]):
        scoring.on_test_batch_end(None, None, *said(rows, mask), 0)
    found = scoring.gathered()
    assert found["row"].tolist() == [1, 2, 4, 5, 9]
    assert found["score"].tolist() == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.9])
    assert ("mask" in found) == mask
    if mask:
        assert found["anomaly_map"][:, 0, 0, 0].tolist() == [1, 2, 4, 5, 9]


def test_a_case_scored_twice_is_an_error() -> None:
    scoring = Scoring()
    for rows in ([5, 2], [2]):
        scoring.on_test_batch_end(None, None, *said(rows), 0)
    with pytest.raises(RuntimeError, match="twice"):
        scoring.gathered()
