"""TensorBoard's own reader finds the record."""

from pathlib import Path

import pytest
from callbacks.conftest import told

from anomaly_lab.callbacks.tensorboard import TensorBoard


def test_tensorboard_reads_the_values_of_the_record(run: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    told(TensorBoard(), run)
    events = reader.EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    points = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert points["train/critic"] == [(10, 11.5), (20, 21.5)]
    assert points["images_per_second"] == [(10, 30.0), (20, 40.0)]
    assert [value for _, value in points["test/auroc_low"]] == [0.625]
    assert {"samples", "samples/pairs", "gallery/tp", "gallery/fn"} <= set(events.Tags()["images"])
    assert {"run/text_summary", "result/text_summary", "caveats/text_summary"} <= set(events.Tags()["tensors"])
