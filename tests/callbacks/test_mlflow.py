"""MLflow's own client finds the record; where it goes is the environment's to say."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from callbacks.conftest import append, told

from anomaly_lab.callbacks.mlflow import MLflow


def test_mlflow_reads_the_values_of_the_record(run: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    told(MLflow(tags=("trial",)), run)
    client = tracking.MlflowClient((run / "mlflow").resolve().as_uri())
    (experiment,) = (e for e in client.search_experiments() if e.name == "toy")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    curve = client.get_metric_history(found.info.run_id, "train/critic")
    assert [(point.step, point.value) for point in curve] == [(10, 11.5), (20, 21.5)]
    assert found.data.metrics["test/auroc_high"] == 0.875
    assert found.data.params["seed"] == "3"
    tags = found.data.tags
    assert {"tag.twin", "tag.smoke", "tag.headct", "tag.trial"} <= set(tags)
    assert (tags["mlflow.user"], tags["mlflow.source.name"], tags["data/fingerprint"]) == (
        "withheld", "anomaly_lab", "abc")  # fmt: skip
    assert "one side only" in tags["caveats"]
    kept = {file.path for folder in ("samples", "gallery") for file in client.list_artifacts(found.info.run_id, folder)}
    assert {"samples/00000020.png", "samples/pairs", "gallery/cases.json", "gallery/tp"} <= kept


def test_mlflow_is_told_where_to_by_the_environment_alone(run: Path, tmp_path: Path, monkeypatch) -> None:
    """A run that goes on is the same one there, and what was told is not told again."""
    tracking = pytest.importorskip("mlflow.tracking")
    address = (tmp_path / "server").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    told(MLflow(), run, finished=False)
    append(run, 30)  # by a process that was stopped before it told
    trainer: Any = SimpleNamespace(is_global_zero=True, default_root_dir=run)
    again = MLflow()
    again.on_fit_start(trainer, None)
    append(run, 40)
    again.on_train_epoch_end(trainer, None)
    append(run, 50)
    again.on_train_epoch_end(trainer, None)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))  # killed, and resumed from the checkpoint of iteration 40
    last = MLflow()
    shown: list[Path] = []
    monkeypatch.setattr(last, "picture", lambda key, path, step: shown.append(path))
    last.on_fit_start(trainer, None)
    for iteration in (50, 60):
        append(run, iteration)
    last.on_train_epoch_end(trainer, None)
    client = tracking.MlflowClient(address)
    (experiment,) = (e for e in client.search_experiments() if e.name == "toy")
    (found,) = client.search_runs([experiment.experiment_id])
    curve = client.get_metric_history(found.info.run_id, "train/critic")
    assert [point.step for point in curve] == [10, 20, 30, 40, 50, 60]
    assert shown == []  # those of iteration 20 are there
    assert not (run / "mlflow").exists()
