"""The mirror shows what the record holds, once, and never breaks a run."""

import getpass
import json
import platform
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from callbacks.conftest import append, told
from PIL import Image

from anomaly_lab.callbacks.wandb import WandB


class Dashboard:
    """Stands for a W&B run; raises when told to."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict]] = []
        self.broken = False
        self.experiment = self  # it is its own logger

    def save(self) -> None:
        pass

    def log(self, values: dict, step: int) -> None:
        if self.broken:
            raise ConnectionError("the network is down")
        self.lines.append((step, values))


@pytest.fixture
def mirror(tmp_path: Path) -> tuple[WandB, Dashboard, SimpleNamespace]:
    (tmp_path / "samples").mkdir()
    callback, dashboard = WandB(), Dashboard()
    callback.logger = dashboard
    return callback, dashboard, SimpleNamespace(default_root_dir=tmp_path)


def messages(file: Path) -> Iterator[bytes]:
    """Yield the messages of an offline file: chunks in blocks of 32 KB, each behind its checksum, length and kind."""
    content, message = file.read_bytes(), b""
    place = 7  # behind the file's header
    while place + 7 <= len(content):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        message += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield message
            message = b""


def test_the_file_has_the_values_of_the_record(run: Path) -> None:
    """W&B's own messages have curves, summary, group, tags and the table of cases."""
    from wandb.proto.wandb_internal_pb2 import Record

    told(WandB(mode="offline", tags=("trial",)), run)
    (file,) = (run / "wandb").rglob("*.wandb")
    until = time.monotonic() + 30
    while b"one side only" not in file.read_bytes() and time.monotonic() < until:
        time.sleep(0.1)  # W&B's own process writes it a little after the end
    curve, summary, runs = [], {}, []
    for record in map(Record.FromString, messages(file)):
        line = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        curve += [(line["_step"], line["train/critic"])] if "train/critic" in line else []
        summary |= {
            item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
        }
        runs += [record.run] if record.HasField("run") else []
    assert curve == [(10, 11.5), (20, 21.5)]
    assert summary["test/auroc"] == 0.75
    assert "one side only" in summary["caveats"]
    assert (runs[0].run_group, runs[0].job_type) == ("toy", "train")
    assert list(runs[0].tags) == ["twin", "smoke", "headct", "trial"]
    assert list((run / "wandb").rglob("gallery*.table.json"))


def test_lines_are_mirrored_once(mirror, tmp_path: Path) -> None:
    callback, dashboard, trainer = mirror
    append(tmp_path, 2)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    callback.on_train_batch_end(trainer, None, None, None, 1)
    append(tmp_path, 4)
    callback.on_train_epoch_end(trainer, None)
    assert [step for step, _ in dashboard.lines] == [2, 2, 4, 4]  # a line of each file


def test_final_figures_are_mirrored_those_of_classes_too(mirror, tmp_path: Path) -> None:
    callback, dashboard, _ = mirror
    dashboard.summary, dashboard.finish = {}, lambda: None
    classes = {"task": "multilabel", "macro_f1": {"value": 0.5}, "mean_average_precision": {"value": 0.25}}
    (tmp_path / "metrics.json").write_text(json.dumps({"detector": {"auroc": {"value": 0.75}}, "classes": classes}))
    callback.on_run_end(tmp_path)
    assert dashboard.summary == {
        "test/auroc": 0.75,
        "classes/macro_f1": 0.5,
        "classes/mean_average_precision": 0.25,
        "caveats": [],
    }


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


def test_an_offline_run_says_nothing_of_the_machine_and_its_user(tmp_path: Path, monkeypatch) -> None:
    """Looks into everything that W&B writes; host and user have names that occur nowhere by chance."""
    monkeypatch.setattr(socket, "gethostname", lambda: "host-of-the-clinic")
    monkeypatch.setattr(platform, "node", lambda: "host-of-the-clinic")
    monkeypatch.setattr(getpass, "getuser", lambda: "user-of-the-clinic")
    monkeypatch.setenv("WANDB_HOST", "host-of-the-clinic")
    monkeypatch.setenv("WANDB_USERNAME", "user-of-the-clinic")
    run = tmp_path / "home-of-the-user" / "runs" / "toy" / "run"
    (run / "samples").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home-of-the-user")
    root = tmp_path / "home-of-the-user" / "archive-of-patients" / "scans"
    (run / "config.yaml").write_text(f"seed: 3\nruns: {run.parents[1]}\ndata: {{root: {root}, sizes: [1]}}\n")
    (run / "provenance.json").write_text("{}")
    (run / "metrics.json").write_text("{}")
    trainer = SimpleNamespace(is_global_zero=True, default_root_dir=run)
    callback = WandB(mode="offline")
    callback.on_fit_start(trainer, None)
    callback.on_train_epoch_end(trainer, None)
    append(run, 2)
    Image.new("L", (8, 8)).save(run / "samples" / "00000002.png")
    callback.on_train_epoch_end(trainer, None)
    config = dict(callback.run.config)
    callback.on_run_end(run)
    assert (config["data"], config["runs"]) == ({"root": "scans", "sizes": [1]}, "runs")
    (record,) = (run / "wandb").rglob("*.wandb")
    until = time.monotonic() + 30
    while b"train/critic" not in record.read_bytes() and time.monotonic() < until:
        time.sleep(0.1)  # W&B's own process writes it a little after the end
    assert b"train/critic" in record.read_bytes()
    left = [path for path in (run / "wandb").rglob("*") if path.is_file()]
    assert not any(path.is_symlink() for path in (run / "wandb").rglob("*"))
    secrets = ["host-of-the-clinic", "user-of-the-clinic", "home-of-the-user", "archive-of-patients", str(Path.home()),
               socket.gethostname(), sys.executable, "pytest", "torch==", platform.platform()]  # fmt: skip
    told = [(path.name, secret) for path in left for secret in secrets if secret.encode() in path.read_bytes()]
    assert told == []


def test_a_run_that_stopped_is_not_the_next_ones(tmp_path: Path) -> None:
    """Of one process, as of a script that trains in a loop; another one's own run is left alone, too."""
    import wandb

    theirs = wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True))
    ids = []
    for name in ("first", "second"):
        run = tmp_path / name
        run.mkdir()
        (run / "config.yaml").write_text("seed: 3\n")
        (run / "provenance.json").write_text("{}")
        callback = WandB(mode="offline")
        callback.on_fit_start(SimpleNamespace(is_global_zero=True, default_root_dir=run), None)
        ids.append(callback.run.id)
        callback.on_run_stopped(run)
    assert len({theirs.id, *ids}) == 3
    theirs.log({"x": 1})
    theirs.finish()


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_only_an_entity_that_the_environment_confirms_is_sent_to(mode: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "key")
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    assert WandB(mode=mode)._allowed_mode() == "online"
    assert WandB(entity="stranger", mode=mode)._allowed_mode() == "offline"
    assert "callbacks.wandb.entity=stranger: the run stays offline" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_ENTITY", "clinic")
    assert WandB(entity="stranger", mode=mode)._allowed_mode() == "offline"
    assert WandB(entity="clinic", mode=mode)._allowed_mode() == "online"


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
    monkeypatch.setattr(callback, "begin", lambda folder, facts: 1 / 0)
    trainer = SimpleNamespace(is_global_zero=True, default_root_dir=tmp_path)
    callback.on_fit_start(trainer, None)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    assert "the run continues without it" in capsys.readouterr().err.replace("\n", " ")


def test_other_ranks_have_no_run(tmp_path: Path) -> None:
    callback = WandB(mode="offline")
    callback.on_fit_start(SimpleNamespace(is_global_zero=False, default_root_dir=tmp_path), None)
    assert callback.logger is None
