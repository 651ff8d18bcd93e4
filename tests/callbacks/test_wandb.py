"""The mirror shows what the record holds, once, and never breaks a run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from anomaly_lab.callbacks.wandb import WandB


class Dashboard:
    """Stands for a W&B run; raises when told to."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict]] = []
        self.broken = False

    def log(self, values: dict, step: int) -> None:
        if self.broken:
            raise ConnectionError("the network is down")
        self.lines.append((step, values))


@pytest.fixture
def mirror(tmp_path: Path) -> tuple[WandB, Dashboard, SimpleNamespace]:
    (tmp_path / "samples").mkdir()
    callback, dashboard = WandB(), Dashboard()
    callback._run, callback._read = dashboard, {"metrics.jsonl": 0, "timings.jsonl": 0}
    return callback, dashboard, SimpleNamespace(default_root_dir=tmp_path)


def append(folder: Path, iteration: int) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"iteration": iteration, "train/critic": 1.5}) + "\n")


def test_lines_are_mirrored_once(mirror, tmp_path: Path) -> None:
    callback, dashboard, trainer = mirror
    append(tmp_path, 2)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    callback.on_train_batch_end(trainer, None, None, None, 1)
    append(tmp_path, 4)
    callback.on_train_epoch_end(trainer, None)
    assert [step for step, _ in dashboard.lines] == [2, 4]


def test_pictures_are_mirrored_once_and_other_names_are_none(mirror, tmp_path: Path, capsys) -> None:
    callback, dashboard, trainer = mirror
    for name in ("00000002.png", "00000004.png", "fakepool.png", "copies/00000004.png", "copies/last.png"):
        path = tmp_path / "samples" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(path)
    for _ in range(2):
        callback.on_train_epoch_end(trainer, None)
    logged = sorted((step, *values) for step, values in dashboard.lines)
    assert logged == [(2, "samples"), (4, "samples"), (4, "samples/copies")]
    assert not capsys.readouterr().err


def test_a_failure_is_told_once_and_ends_the_mirror(mirror, tmp_path: Path, capsys) -> None:
    callback, dashboard, trainer = mirror
    dashboard.broken = True
    append(tmp_path, 2)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    append(tmp_path, 4)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    callback.on_run_end(tmp_path)
    assert capsys.readouterr().err.count("W&B failed") == 1


def test_a_start_that_fails_does_not_stop_the_training(tmp_path: Path, monkeypatch, capsys) -> None:
    callback = WandB(mode="offline")
    monkeypatch.setattr(callback, "_start", lambda folder: 1 / 0)
    trainer = SimpleNamespace(is_global_zero=True, default_root_dir=tmp_path)
    callback.on_fit_start(trainer, None)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    assert "the run continues without it" in capsys.readouterr().err.replace("\n", " ")


def test_other_ranks_have_no_run(tmp_path: Path) -> None:
    callback = WandB(mode="offline")
    callback.on_fit_start(SimpleNamespace(is_global_zero=False, default_root_dir=tmp_path), None)
    assert callback._run is None
