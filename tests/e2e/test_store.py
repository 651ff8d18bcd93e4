"""Stores under real processes: killed and started again, and many at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import ROOT

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("build_store.py")


def _start(folder: Path, pause: float) -> subprocess.Popen[str]:
    words = [sys.executable, str(SCRIPT), str(folder), str(pause)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return out.split()


def _lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob(".*.tmp/cases.jsonl"))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_killed_build_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    _, name, _ = _finish(_start(tmp_path / "straight", 0.0))
    twins = tmp_path / "killed" / "twins"
    twins.parent.mkdir()
    (tmp_path / "straight" / "twins").rename(twins)  # the same files, so the same store
    for done in (2, 5):
        process = _start(tmp_path / "killed", 0.5)
        while _lines(tmp_path / "killed") < done:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed" / name).exists()
    assert _finish(_start(tmp_path / "killed", 0.0))[0] == "built"
    assert _bytes(tmp_path / "killed" / name) == _bytes(tmp_path / "straight" / name)


def test_eight_processes_at_once_build_once(tmp_path: Path) -> None:
    said = [_finish(process) for process in [_start(tmp_path, 0.1) for _ in range(8)]]
    assert sorted(words[0] for words in said) == ["built", *["reused"] * 7]
    assert len({words[2] for words in said}) == 1
