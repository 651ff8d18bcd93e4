"""Files of the record appear whole or not at all."""

import errno
import json
import os
import socket
import subprocess
import sys
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


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("mine")
    (run := tmp_path / "run").mkdir()
    for name in ("scores.csv", f".scores.csv.{socket.gethostname()}.{os.getpid()}.partial", "log", ".lock"):
        (run / name).symlink_to(victim)
    run_folder.write_atomic(run / "scores.csv", "scores")
    assert (run / "scores.csv").read_text() == "scores"
    with pytest.raises(UserError, match=r"cannot write .*log: .*remove a link"):
        run_folder.append_line(run / "log", "line")
    with run_folder.locked(run):
        pass
    assert victim.read_text() == "mine"
    assert sorted(path.name for path in run.iterdir() if path.is_symlink()) == ["log"]


def test_a_run_folder_with_a_link_to_another_folder_is_refused(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    (run / "config.yaml").touch()
    (run / "wandb" / "offline-run-1").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to(run / "wandb" / "offline-run-1")
    assert run_folder.open_run(str(run)) == run
    (run / "checkpoints").symlink_to(tmp_path)
    with pytest.raises(UserError, match="checkpoints is a link out of the run folder; replace it"):
        run_folder.open_run(str(run))


def test_json_that_is_nested_deeply_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"a":' * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        run_folder.read_json(tmp_path / "metrics.json")


def test_json_of_the_record_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        run_folder.write_json(tmp_path / "x.json", {"auroc": float("nan")})
    assert not list(tmp_path.iterdir())


def test_provenance_grows(tmp_path: Path) -> None:
    run_folder.write_json(tmp_path / "provenance.json", {"seed": 1})
    run_folder.update_provenance(tmp_path, finished="now")
    assert json.loads((tmp_path / "provenance.json").read_text()) == {"seed": 1, "finished": "now"}


def _made(runs: Path) -> Path:
    run = run_folder.new_place(runs, "fanogan_headct", ("laptop", "twin"))
    with run_folder.create(run) as work:
        (work / "config.yaml").write_text("seed: 0")
    return run


def test_run_folders_carry_their_marks(tmp_path: Path) -> None:
    run = _made(tmp_path)
    assert run.parent == tmp_path / "fanogan_headct"
    assert "-laptop-twin-" in run.name
    assert _made(tmp_path) != run
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.yaml", "samples"]


def test_a_run_folder_is_whole_or_absent(tmp_path: Path) -> None:
    def fail() -> None:
        with run_folder.create(tmp_path / "toy" / "run"):
            assert not (tmp_path / "toy" / "run").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list((tmp_path / "toy").iterdir())


def test_what_a_killed_process_left_of_a_run_folder_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, sys; from anomaly_lab.experiment import run_folder\n"
        "with run_folder.create(run_folder.new_place(sys.argv[1], 'fanogan_headct', ())): os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert len(list((tmp_path / "fanogan_headct").iterdir())) == 1
    with run_folder.create(
        run_folder.new_place(tmp_path, "fanogan_headct", ())
    ) as other:  # of a living process: it stays
        run = _made(tmp_path)
        assert {path.name for path in (tmp_path / "fanogan_headct").iterdir()} == {run.name, other.name}


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    with run_folder.locked(tmp_path):
        script = (
            "import sys; from pathlib import Path; from anomaly_lab.experiment import run_folder\n"
            "with run_folder.locked(Path(sys.argv[1])): pass"
        )
        second = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True)
        assert b"in use by another process" in second.stderr
    with run_folder.locked(tmp_path):
        pass


def test_partial_files_are_removed_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (".config.yaml.12.partial", "checkpoints/.00000001.ckpt.12.partial", "checkpoints/kept.partial.ckpt"):
        (tmp_path / name).touch()
    run_folder.remove_partial_files(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept.partial.ckpt"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff", "null"])
def test_a_damaged_record_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "provenance.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"provenance\.json cannot be read"):
        run_folder.read_json(tmp_path / "provenance.json")


@pytest.mark.parametrize("path", ["", "nothing/here"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        run_folder.open_run(str(tmp_path / path))


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may lie in an environment inside somebody's repository."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "run_folder.py"))
    assert run_folder.provenance()["git"] == {"commit": None, "dirty": None}


def test_what_a_killed_process_left_of_a_file_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    path, host = tmp_path / "report [1].html", socket.gethostname()
    script = (
        "import os, sys; from pathlib import Path; from anomaly_lab.experiment import run_folder\n"
        "run_folder.os.fsync = lambda _: os._exit(1)\n"
        "run_folder.write_atomic(Path(sys.argv[1]), 'half')"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    living = tmp_path / f".{path.name}.{host}.{os.getppid()}.partial"
    living.touch()
    run_folder.write_atomic(path, "whole")
    assert set(tmp_path.iterdir()) == {path, living}
