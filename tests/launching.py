"""Whole runs as programs of their own, as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def launch(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Start Python with these words in the repository's root, one thread, and wait for it."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def run_folder(base: Path) -> Path:
    """The only run below `base`."""
    (run,) = (base / "runs" / "fanogan_headct").iterdir()
    return run
