"""What every dashboard is told: the record, by its own reader; a failing one never hurts the run."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from callbacks.conftest import RESULT, append, told

from anomaly_lab import catalogue
from anomaly_lab.callbacks.csv_table import CSVTable
from anomaly_lab.callbacks.mirror import Mirror, caveats_of, exhibits_of, facts_of, summary_of
from anomaly_lab.callbacks.mlflow import MLflow
from anomaly_lab.callbacks.tensorboard import TensorBoard
from anomaly_lab.callbacks.wandb import WandB


def test_a_run_is_described_by_its_experiment_and_its_tags(run: Path) -> None:
    facts = facts_of(run, ("trial",))
    assert (facts.name, facts.group, facts.tags) == ("toy/1", "toy", ("twin", "smoke", "headct", "trial"))
    assert facts.config["data"]["root"] == "scans"
    assert caveats_of(run) == (
        "reduced budget: smoke",
        "synthetic twin: the images are generated, not from patients",
        "one side only",
    )


def test_the_summary_has_intervals_baselines_threshold_counts_and_fingerprints(run: Path) -> None:
    (run / "metrics.json").write_text(json.dumps(RESULT))
    expected = {"test/auroc": 0.75, "test/auroc_low": 0.625, "test/auroc_high": 0.875, "baselines/pca_32/auroc": 0.5,
                "versus_baselines/difference": 0.25, "versus_baselines/best": "pca_32", "threshold": 1.5,
                "counts/test/anomalous": 2.0, "data/fingerprint": "abc", "git/commit": "c0ffee"}  # fmt: skip
    summary = summary_of(run)
    assert expected.items() <= summary.items()
    names = set(summary)
    assert not any(other.startswith(f"{name}/") for name in names for other in names)  # of a file store, both at once


def test_volumes_are_shown_by_their_middle_slice(run: Path) -> None:
    image = np.full((1, 1, 3, 4, 5), -1.0, np.float32)
    image[0, 0, 1] = 1
    np.savez(run / "samples" / "gallery.npz", id=np.array(["Smith^Ann"]), kind=np.array(["fixed"]), image=image)
    (exhibit,) = exhibits_of(run)
    assert exhibit.pictures["image"].shape == (4, 5, 3)
    assert "Ann" not in str(exhibit)  # ids may be names
    assert exhibit.case == 1
    assert (exhibit.pictures["image"] == 255).all()


@pytest.mark.parametrize("callback", [TensorBoard, CSVTable])
def test_a_run_that_goes_on_is_told_anew(callback: type[Mirror], run: Path) -> None:
    """What a stopped process told after its last checkpoint is gone from the record, and so from the dashboard."""
    pytest.importorskip("tensorboard")
    told(callback(), run, finished=False)
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().splitlines(keepends=True)[0])
    trainer: Any = SimpleNamespace(is_global_zero=True, default_root_dir=run)
    again = callback()
    again.on_fit_start(trainer, None)
    append(run, 15)
    again.on_train_epoch_end(trainer, None)
    again.on_run_end(run)
    if callback is CSVTable:
        with (run / "csv" / "metrics.csv").open(newline="") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/critic"]]
    else:
        reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        steps = [e.step for e in reader.EventAccumulator(str(run / "tensorboard")).Reload().Scalars("train/critic")]
    assert steps == [10, 15]


MIRRORS = [c for c in catalogue.classes("anomaly_lab.callbacks").values() if issubclass(c, Mirror) and c is not Mirror]


@pytest.mark.parametrize("callback", MIRRORS)
def test_a_dashboard_that_fails_is_told_of_once_and_hurts_nothing(
    callback: type[Mirror], run: Path, monkeypatch, capsys
) -> None:
    def broken(*_: object) -> None:
        raise ConnectionError("the network is down")

    mirror = callback()
    monkeypatch.setattr(mirror, "begin", lambda folder, facts: SimpleNamespace(save=broken, log_metrics=broken))
    monkeypatch.setattr(mirror, "line", broken)
    trainer: Any = SimpleNamespace(is_global_zero=True, default_root_dir=run)
    mirror.on_fit_start(trainer, None)
    append(run, 10)
    for _ in range(2):
        mirror.on_train_batch_end(trainer, None, None, None, 0)
        mirror.on_train_epoch_end(trainer, None)
    mirror.on_run_end(run)
    said = capsys.readouterr().err
    assert said.count("the network is down") == 1
    assert "the run continues without it" in said


@pytest.mark.parametrize(("callback", "package_name"), [(TensorBoard, "tensorboard"), (MLflow, "mlflow")])
def test_without_the_extra_one_line_names_it(
    callback: type[Mirror], package_name: str, run: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, package_name, None)
    mirror = callback()
    mirror.on_fit_start(SimpleNamespace(is_global_zero=True, default_root_dir=run), None)
    assert mirror.logger is None
    assert "pip install anomaly-lab[loggers]" in capsys.readouterr().err


@pytest.mark.parametrize("callback", MIRRORS)
def test_a_run_that_stops_leaves_its_dashboard(callback: type[Mirror], run: Path, monkeypatch) -> None:
    """Another run of the same process must not be told to it."""
    mirror, stopped = callback(), []
    monkeypatch.setattr(mirror, "stop", stopped.append)
    mirror.on_run_stopped(run)
    assert stopped == []  # it had not begun
    monkeypatch.setattr(mirror, "begin", lambda folder, facts: SimpleNamespace())
    mirror.on_fit_start(SimpleNamespace(is_global_zero=True, default_root_dir=run), None)
    mirror.on_run_stopped(run)
    assert stopped == [run]
    assert mirror.logger is None


def test_other_ranks_tell_nothing(run: Path) -> None:
    callback = CSVTable()
    callback.on_fit_start(SimpleNamespace(is_global_zero=False, default_root_dir=run), None)
    assert callback.logger is None


@pytest.mark.parametrize("callback", MIRRORS)
def test_no_dashboard_hears_the_name_of_a_case(callback: type[Mirror], run: Path, tmp_path: Path, monkeypatch) -> None:
    """Files are often named after patients: ids stay in the run's own files, wherever the dashboard is."""
    if callback is MLflow:
        pytest.importorskip("mlflow")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "server").as_uri())
    told(callback(mode="offline") if callback is WandB else callback(), run)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    knowing = {path for path in written if b"smith_" in path.read_bytes()}
    assert knowing <= {run / name for name in ("provenance.json", "report.html", "samples/gallery.npz")}
    assert len(written) > len([path for path in run.glob("*") if path.is_file()]) + 3
