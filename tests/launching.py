"""Whole runs as programs of their own, as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

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


def dying(where: str) -> str:
    """Python that runs the command of its process, which dies where `run_and_die.py` is told."""
    program = str(ROOT / "tests" / "e2e" / "run_and_die.py")
    return f"import runpy, sys\nsys.argv.insert(1, {where!r})\nrunpy.run_path({program!r}, run_name='__main__')\n"


def second_processes(first: psutil.Process) -> list[psutil.Process]:
    """Return the other process of a run of two, once it is there.

    Not git, which the first one starts as well, nor a copy of the first one that is about to become git.
    """

    def is_second(child: psutil.Process) -> bool:
        try:
            return child.environ().get("LOCAL_RANK") == "1"
        except psutil.Error:
            return False

    return list(filter(is_second, first.children()))


def the_run(base: Path) -> Path:
    """The only run below `base`."""
    (run,) = (base / "runs" / "fanogan_headct").iterdir()
    return run


def small(base: Path, store: Path) -> list[str]:
    """Overrides for a run below `base`: 6 + 6 iterations, 32×32 pictures of a twin of 60, an epoch every 3."""
    return [
        "budget=smoke",
        f"runs={base / 'runs'}",
        "data.source=twin",
        f"data.store.folder={store}",
        "data.twin.size=60",
        "data.split.train_normals=20",
        "data.patch_size=[32,32]",
        "data.batch_size=4",
        "data.epoch_length=3",
        "detector.width=4",
        "detector.n_critic=2",
        "detector.gan_iterations=6",
        "detector.encoder_iterations=6",
        "callbacks.wandb.mode=disabled",
        "callbacks.record.every=2",
        "evaluation.replicates=50",
    ]
