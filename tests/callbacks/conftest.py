"""A run folder with a short record, and a callback that is told of it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from anomaly_lab.callbacks.mirror import Mirror

RESULT = {
    "detector": {"auroc": {"value": 0.75, "low": 0.625, "high": 0.875}},
    "baselines": {"pca_32": {"auroc": {"value": 0.5, "low": 0.25, "high": 0.625}}},
    "versus_baselines": {"best": "pca_32", "difference": {"value": 0.25}, "beaten": True, "sentence": "It is better."},
    "threshold": {"value": 1.5, "rule": "quantile of validation normals"},
    "counts": {"test": {"normal": 4, "anomalous": 2}},
}
PROVENANCE = {
    "experiment": "toy",
    "source": "twin",
    "budget": "smoke",
    "run": "toy/1",
    "data": {
        "name": "headct",
        "fingerprint": "abc",
        "remarks": ["one side only"],
        "concerned": {"one side only": ["smith_01.png"]},
    },
    "git": {"commit": "c0ffee"},
    "accepted_changes": [
        {"at": "2026", "verb": "evaluate", "changes": "1 removed", "named": "1 removed (smith_02.png)"}
    ],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = tmp_path / "runs" / "toy" / "1"
    (folder / "samples" / "pairs").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 3, "data": {"root": "/home/ann/scans"}}))
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    return folder


def append(folder: Path, *iterations: int) -> None:
    for name, key, value in (("metrics.jsonl", "train/critic", 1.5), ("timings.jsonl", "images_per_second", 20.0)):
        with (folder / name).open("a") as file:
            file.writelines(json.dumps({"iteration": i, "phase": "gan", key: value + i}) + "\n" for i in iterations)


def told(callback: Mirror, folder: Path, *, finished: bool = True) -> None:
    """Let a callback see a run of two epochs, and its result."""
    trainer: Any = SimpleNamespace(is_global_zero=True, default_root_dir=folder)
    callback.on_fit_start(trainer, None)
    append(folder, 10)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    append(folder, 20)
    Image.new("L", (4, 4), 9).save(folder / "samples" / "00000020.png")
    Image.new("RGB", (4, 4), (1, 2, 3)).save(folder / "samples" / "pairs" / "00000020.png")
    callback.on_train_epoch_end(trainer, None)
    if finished:
        (folder / "metrics.json").write_text(json.dumps(RESULT))
        cases = {
            "id": np.array(["smith_03.png", "smith_04.png"]),
            "kind": np.array(["tp", "fn"]),
            "image": np.zeros((2, 1, 4, 4), np.float32),
            "anomaly_map": np.ones((2, 1, 4, 4), np.float32),
            "anomaly_score": np.array([2.0, 0.5], np.float32),
        }
        np.savez(folder / "samples" / "gallery.npz", **cases)
        (folder / "report.html").write_text("<td>smith_05.png</td>")
        callback.on_run_end(folder)
    assert callback.enabled
