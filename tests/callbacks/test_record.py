"""The record: truncation, and the guard against numbers that are none."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import Shift

from anomaly_lab.callbacks.record import DivergedError, Record, keep_until, peak_memory
from anomaly_lab.experiment import run_folder
from anomaly_lab.types import UserError


def write(path: Path, iterations: list[int], torn: str = "") -> None:
    path.write_text("".join(json.dumps({"iteration": i}) + "\n" for i in iterations) + torn)


@pytest.mark.parametrize(("until", "kept"), [(0, []), (4, [2, 4]), (5, [2, 4]), (99, [2, 4, 6])])
def test_lines_after_the_checkpoint_go(tmp_path: Path, until: int, kept: list[int]) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [2, 4, 6], torn='{"itera')
    keep_until(path, until)
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == kept


def test_no_record_yet_is_fine(tmp_path: Path) -> None:
    keep_until(tmp_path / "metrics.jsonl", 3)
    assert not list(tmp_path.iterdir())


def test_a_diverged_training_stops_and_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "00000010-0123456789abcdef.ckpt").touch()
    trainer = SimpleNamespace(default_root_dir=tmp_path)
    guard = Record()
    guard._refuse_nonfinite(trainer, {"train/critic": 1.0}, 20)
    with pytest.raises(DivergedError, match=r"iteration 20: not finite: train/grad_critic; .*00000010") as stopped:
        guard._refuse_nonfinite(trainer, {"train/critic": 1.0, "train/grad_critic": float("nan")}, 20)
    assert "\n" not in str(stopped.value)


def test_peak_memory_is_in_gigabytes_and_never_falls() -> None:
    before = peak_memory()["ram"]
    block = bytearray(200 * 2**20)
    after = peak_memory()["ram"]
    del block
    assert 0.01 < before <= after < 100


@pytest.mark.parametrize("line", ["", "x", "null", "[1]", "{}", '{"iteration": "x"}', "\xff"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1}\n' + line.encode("latin-1") + b'\n{"iteration": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: is damaged"):
        keep_until(path, 5)


def test_a_full_disk_while_a_line_is_added_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder, "open", full, raising=False)
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: No space left on device; free disk space"):
        run_folder.append_line(tmp_path / "metrics.jsonl", "{}")


def test_what_is_not_written_yet_is_saved_as_all_processes_tracked_it() -> None:
    """The first process writes the checkpoint, and all of them go on with it."""
    detector = Shift()
    detector.tracked = {"train/loss": [torch.tensor(1.0), torch.tensor(3.0)]}
    others = torch.tensor([3.0, 7.0])
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(reduce=lambda value, reduce_op: (value + others) / 2))
    checkpoint: dict[str, Any] = {}
    Record().on_save_checkpoint(trainer, detector, checkpoint)
    assert checkpoint["tracked"]["train/loss"].tolist() == [2.0, 5.0]
