"""A run folder that the code of commit c267c94 left: classes and settings have moved since, its scores have not."""

import csv
import shutil
from pathlib import Path

import pytest
from commands import Server
from PIL import Image

OLD = Path(__file__).with_name("run_of_older_code")

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path, store: Path) -> Path:
    """A copy of it whose store is this session's."""
    copied = Path(shutil.copytree(OLD, tmp_path / "runs" / "fanogan_headct" / "20261128-071007-smoke-twin-27fa"))
    config = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(config.replace("store_dir: .store", f"store_dir: {store}"))
    return copied


def scores(path: Path) -> dict[str, float]:
    return {row["id"]: float(row["score"]) for row in csv.DictReader(path.open())}


def test_it_is_evaluated_to_the_same_scores(server: Server, run: Path) -> None:
    before = scores(run / "scores.csv")
    (run / "scores.csv").unlink()
    done = server.run("evaluate", run)
    assert done.status == 0, done.said
    assert scores(run / "scores.csv") == pytest.approx(before, rel=1e-6)
    assert len(before) == 42


def test_it_predicts_and_reports(server: Server, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    Image.linear_gradient("L").save(tmp_path / "new" / "grey.png")
    done = server.run("predict", run, tmp_path / "new")
    assert done.status == 0, done.said
    (out,) = (run / "predictions").iterdir()
    assert list(scores(out / "scores.csv")) == ["grey.png"]
    assert "Input not checked" in (out / "index.html").read_text()
    assert server.run("report", run).status == 0
    assert "AUROC" in (run / "report.html").read_text()
