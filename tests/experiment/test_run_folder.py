"""Files of the record appear whole or not at all."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from anomaly_lab.experiment import run_folder
from anomaly_lab.types import UserError


def test_write_atomic_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    run_folder.write_atomic(path, "old")
    run_folder.write_atomic(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    run_folder.write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*file.json: No space left on device; free disk space"):
        run_folder.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_of_the_record_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        run_folder.write_json(tmp_path / "x.json", {"auroc": float("nan")})
    assert not list(tmp_path.iterdir())


def test_provenance_grows(tmp_path: Path) -> None:
    run_folder.write_json(tmp_path / "provenance.json", {"seed": 1})
    run_folder.update_provenance(tmp_path, finished="now")
    assert json.loads((tmp_path / "provenance.json").read_text()) == {"seed": 1, "finished": "now"}


def test_run_folders_carry_their_marks(tmp_path: Path) -> None:
    run = run_folder.create(str(tmp_path), "fanogan_headct", ("laptop", "twin"))
    assert run.parent == tmp_path / "fanogan_headct"
    assert "-laptop-twin-" in run.name
    assert run_folder.create(str(tmp_path), "fanogan_headct", ("laptop", "twin")) != run


@pytest.mark.parametrize("path", ["", "nothing/here"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        run_folder.open_run(str(tmp_path / path))


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may lie in an environment inside somebody's repository."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "run_folder.py"))
    assert run_folder.provenance()["git"] == {"commit": None, "dirty": None}
