import json
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_lab.bench import dashboard
from anomaly_lab.dashboard.index import Index
from anomaly_lab.types import UserError


def test_made_up_runs_are_read_as_real_ones(tmp_path: Path):
    dashboard.generate(tmp_path, 40)
    index = Index(tmp_path)
    index.update()
    states = [row.state for row in index.rows.values()]
    assert (states.count("finished"), states.count("stopped")) == (38, 2)
    assert len({row.group for row in index.rows.values()}) == 8
    assert {row.seed for row in index.rows.values()} == {*range(dashboard.SEEDS)}


def test_the_figures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(dashboard, "browsed", lambda path: {"open": 0.5})
    dashboard.main(tmp_path / "new" / "bench.json", ["runs=10"])
    found = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert found["runs"] == 10
    assert found["index, first time"] > 0
    assert "open: 0.5 s" in capsys.readouterr().out
    with pytest.raises(UserError, match="runs=x: takes runs=N"):
        dashboard.main(tmp_path / "bench.json", ["runs=x"])


@pytest.mark.slow
def test_a_browser_is_timed_where_there_is_one(tmp_path: Path, chromium: object):
    words = ["bench", "--section", "dashboard", "--out", str(tmp_path / "bench.json"), "runs=10"]
    subprocess.run([sys.executable, "-m", "anomaly_lab", *words], check=True)  # one browser a process
    assert json.loads((tmp_path / "bench.json").read_text())["open"] > 0


def test_without_a_browser_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dashboard.shutil, "which", lambda name: None)
    assert dashboard.browsed(tmp_path) == {"browser": "none: needs Chromium and playwright"}
