"""The wheel, installed elsewhere: it holds experiments and templates, has a console script, and trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and its script, made from a wheel that was built from the tracked files."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    archive = subprocess.run(
        ["tar", "--create", "--null", "--files-from=-"], cwd=ROOT, input=tracked, capture_output=True, check=True
    ).stdout
    (folder / "source").mkdir()
    subprocess.run(["tar", "--extract"], cwd=folder / "source", input=archive, check=True)
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source"]
    subprocess.run(wheel, check=True)
    (file,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", file], check=True)
    return folder / "site"


def start(installed: Path, cwd: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The console script, in a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(installed / "bin" / "anomaly-lab"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path) -> None:
    code = "import anomaly_lab; print(anomaly_lab.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_it_lists_trains_and_predicts(installed: Path, tmp_path: Path) -> None:
    listed = start(installed, tmp_path, "list")
    assert listed.returncode == 0, listed.stderr
    assert "headct" in listed.stdout
    words = ["budget=smoke", "callbacks.wandb=null", "evaluation.replicates=50"]
    trained = start(installed, tmp_path, "train", "ganomaly_headct", *words)
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "runs" / "ganomaly_headct").iterdir()
    assert (run / "report.html").is_file()
    (picture, *_) = sorted((tmp_path / ".store").rglob("head_ct/*.png"))
    predicted = start(installed, tmp_path, "predict", run, picture)
    assert predicted.returncode == 0, predicted.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store", "runs"]
