"""The examples of CONTRIBUTING.md, as they stand there: in style, in order, and they run together."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from data.datasets.test_contract import CHECKS
from detectors.test_contract import check_optimisers, check_predictions_carry_no_graph, check_resuming
from discovery import gaps, undescribed
from toys import smooth

import anomaly_lab
from anomaly_lab import catalogue
from anomaly_lab.experiment import compose, config
from anomaly_lab.pipeline import engine

ROOT = Path(__file__).parent.parent
EXAMPLE = re.compile(r'^```(?:python|yaml) title="(\S+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
CLASSES = {"MyNet": "detectors", "MySet": "data.datasets", "Copies": "callbacks"}


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The examples' classes by name, as if their files lay where they belong."""
    for name, text in EXAMPLES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    before = {*sys.modules}
    for package in CLASSES.values():
        found = sys.modules[f"{anomaly_lab.__name__}.{package}"]
        folder = tmp_path / found.__name__.replace(".", "/")
        monkeypatch.setattr(found, "__path__", [*found.__path__, str(folder)])
    monkeypatch.setenv(compose.ENVIRONMENT, str(tmp_path / "experiments"))
    monkeypatch.chdir(tmp_path)
    yield {name: catalogue.find(f"anomaly_lab.{package}", name) for name, package in CLASSES.items()}
    for name in {*sys.modules} - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_they_are_in_the_projects_style(tmp_path: Path) -> None:
    assert len(EXAMPLES) == 6
    for name, text in EXAMPLES.items():
        if name.endswith(".py"):
            (tmp_path / Path(name).name).write_text(text, encoding="utf-8")
    for words in (["format", "--check"], ["check"]):
        command = [Path(sys.executable).with_name("ruff"), *words, "--config", ROOT / "pyproject.toml", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_they_keep_the_contracts(added: dict[str, Any], tmp_path: Path) -> None:
    assert {name: gaps(kind) + undescribed(kind) for name, kind in added.items()} == {name: [] for name in added}
    detector = added["MyNet"](patch_size=(32, 32), fit_iterations=4)
    detector.refuse_gaps()
    check_optimisers(detector)
    check_predictions_carry_no_graph(detector, smooth(3, seed=0))

    def make(seed: int) -> Any:
        torch.manual_seed(seed)
        return added["MyNet"](patch_size=(32, 32), fit_iterations=4)

    check_resuming(make, smooth(12, seed=0), tmp_path / "runs")
    (root := tmp_path / "myset").mkdir()
    data = config.build(config.load_data("myset", ["budget=smoke", f"data.root={root}"]).data)
    data.write_twin(root, 0, 60)
    for check in CHECKS:
        check(data, root)


def test_they_run_together(added: dict[str, Any]) -> None:
    run = engine.train_by_name("mynet_myset", ["budget=smoke", "callbacks.wandb=null"])
    assert [path.name for path in sorted((run / "samples" / "copies").iterdir())] == ["00000010.png", "00000020.png"]
    assert "Pictures of the callback copies" in (run / "report.html").read_text(encoding="utf-8")
    assert not added["Copies"].changes_scores
