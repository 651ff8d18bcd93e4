"""Torn, corrupted and missing checkpoints."""

import errno
import io
import os
import zipfile
from pathlib import Path

import pytest
import torch

from anomaly_lab.experiment import checkpoint_files, run_folder
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.types import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with checkpoints of iterations 3 and 6."""
    (tmp_path / "checkpoints").mkdir()
    for iteration in (3, 6):
        content = {"state_dict": {"iteration": torch.tensor(iteration)}, "loops": {"done": iteration}}
        CheckpointFiles().save_checkpoint(content, tmp_path / "checkpoints" / f"{iteration:08d}.ckpt")
    return tmp_path


def test_the_newest_is_read_back(run: Path) -> None:
    newest = checkpoint_files.newest(run)
    assert newest is not None
    assert newest.name.startswith("00000006-")
    assert checkpoint_files.load(newest)["state_dict"]["iteration"] == 6


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: b"", lambda c: c[:50] + b"x" + c[51:]])
def test_a_damaged_one_is_passed_over_with_a_message(run: Path, capsys: pytest.CaptureFixture[str], damage) -> None:
    newest = checkpoint_files.newest(run)
    assert newest is not None
    newest.write_bytes(damage(newest.read_bytes()))
    before = checkpoint_files.newest(run)
    assert before is not None
    assert before.name.startswith("00000003-")
    assert "is damaged" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="is damaged"):
        checkpoint_files.load(newest)


def test_a_pipe_is_not_waited_for(run: Path) -> None:
    last = checkpoint_files.newest(run)
    facts = {"checkpoint": {"file": last.name}}
    last.unlink()
    os.mkfifo(last)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint_files.final(run, facts)
    assert checkpoint_files.newest(run).name.startswith("00000003")


def test_none_is_none(tmp_path: Path) -> None:
    assert checkpoint_files.newest(tmp_path) is None


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    CheckpointFiles().save_checkpoint({"state_dict": Evil()}, tmp_path / "1.ckpt")
    (path,) = tmp_path.glob("*.ckpt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        checkpoint_files.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_leaves_the_older_ones(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder.os, "fsync", full)
    before = sorted((run / "checkpoints").iterdir())
    with pytest.raises(UserError, match="No space left on device"):
        CheckpointFiles().save_checkpoint({"a": 1}, run / "checkpoints" / "00000009.ckpt")
    assert sorted((run / "checkpoints").iterdir()) == before


@pytest.mark.parametrize("content", [
    3, {}, {"state_dict": 3}, {"state_dict": {"w": 3}}, {"state_dict": {}, "loops": 3},
    {"state_dict": {}, "callbacks": []},
    {"state_dict": {}, "optimizer_states": [3]}, {"state_dict": {}, "optimizer_states": {}},
])  # fmt: skip
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, content: object) -> None:
    torch.save(content, buffer := io.BytesIO())
    path = tmp_path / f"00000001-{checkpoint_files._digest(buffer.getvalue())}.ckpt"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="holds no checkpoint; delete it"):
        checkpoint_files.load(path)


def test_a_compressed_one_could_unpack_to_any_size(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(2**20)}}, tmp_path / "plain")
    with (
        zipfile.ZipFile(tmp_path / "plain") as plain,
        zipfile.ZipFile(tmp_path / "c", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for member in plain.infolist():
            out.writestr(member.filename, plain.read(member))
    content = (tmp_path / "c").read_bytes()
    path = tmp_path / f"00000001-{checkpoint_files._digest(content)}.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"holds no checkpoint .*compressed"):
        checkpoint_files.load(path)
