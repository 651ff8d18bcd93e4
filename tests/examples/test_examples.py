"""The scripts and the notebook in examples/ run as they stand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def run(folder: Path, *words: str | Path) -> str:
    """Start Python with these words in an empty folder; what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANOMALY_")}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES.parent), "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_folder_of_pictures_is_trained_on_and_new_ones_are_scored(tmp_path: Path) -> None:
    printed = run(tmp_path, EXAMPLES / "train_on_your_pictures.py")
    assert "AUROC" in printed
    (folder,) = (tmp_path / "runs" / "ganomaly_folder").iterdir()
    pictures = sorted((tmp_path / ".store").glob("twins/*/normal/**/*.png"))[:2]
    lines = run(tmp_path, EXAMPLES / "score_new_pictures.py", folder, *pictures).splitlines()
    assert lines[0].startswith("threshold")
    assert [line.split(":")[0] for line in lines[1:]] == [str(path) for path in pictures]


def test_detectors_are_compared_beside_the_baselines(tmp_path: Path) -> None:
    lines = run(tmp_path, EXAMPLES / "compare_detectors.py", "headct", "kde", "autoencoder").splitlines()
    assert {line.split()[0] for line in lines[1:]} >= {"(mean_image)", "(pca_32)", "autoencoder", "kde"}
    values = [float(line.split()[1]) for line in lines[1:]]
    assert values == sorted(values, reverse=True)


def test_every_cell_of_the_notebook_runs(tmp_path: Path) -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "cells.py").write_text("\n\n".join([*cells, "side_by_side(paths[0]).save('map.png')"]))
    assert "AUROC" in run(tmp_path, tmp_path / "cells.py")
    assert (tmp_path / "map.png").stat().st_size > 1000
