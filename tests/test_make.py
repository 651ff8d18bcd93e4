"""The entry point sets the environment up once, however many ask for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUB = f"""#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo venv >> log;;
  "-m pip") echo begin >> log; sleep 0.3; echo end >> log;;
  *) exec {sys.executable} "$@";;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose Python only pretends to install."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(STUB)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def start(clone: Path) -> subprocess.Popen[str]:
    words = ["make", "setup", f"PYTHON={clone / 'python'}"]
    return subprocess.Popen(words, cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_of_many_at_once_one_sets_up(clone: Path) -> None:
    for ended in [start(clone) for _ in range(4)]:
        said, _ = ended.communicate(timeout=60)
        assert ended.returncode == 0, said
    assert (clone / "log").read_text().split() == ["venv", *["begin", "end"] * 2]
    assert (clone / ".venv" / ".complete").exists()


def test_what_was_killed_while_it_set_up_is_done_again(clone: Path) -> None:
    killed = start(clone)
    while not (clone / "log").exists():
        assert killed.poll() is None
    killed.kill()
    ended = start(clone)
    said, _ = ended.communicate(timeout=60)
    assert ended.returncode == 0, said
    assert (clone / "log").read_text().split()[-4:] == ["begin", "end"] * 2
