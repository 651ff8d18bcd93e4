"""The mean validation score is tracked as soon as a score means something."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from anomaly_lab.callbacks.scoring import ValidationScore
from anomaly_lab.types import Batch, Prediction


@pytest.mark.parametrize("ready", [True, False])
def test_it_is_the_mean_over_all_batches_and_starts_anew(monkeypatch: pytest.MonkeyPatch, ready: bool) -> None:
    tracked: list[dict[str, float]] = []
    monkeypatch.setattr("anomaly_lab.callbacks.scoring.Detector", SimpleNamespace)
    detector: Any = SimpleNamespace(
        ready=ready, track=lambda terms: tracked.append({k: float(v) for k, v in terms.items()})
    )
    trainer: Any = None
    callback = ValidationScore()
    for scores, labels in (([1.0, 2.0], [0, 0]), ([6.0, 99.0], [0, 1])):  # a labelled anomaly is no normal
        batch = Batch(label=torch.tensor(labels))
        callback.on_validation_batch_end(trainer, detector, Prediction(torch.tensor(scores)), batch, 0)
    callback.on_validation_epoch_end(trainer, detector)
    callback.on_validation_epoch_end(trainer, detector)  # an epoch without validation normals
    assert tracked == ([{"val/anomaly_score": 3.0}] if ready else [])
