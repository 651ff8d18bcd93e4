"""The house rules that no single room can test: baselines, mirrored tests, experiments that load."""

import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_lab.experiment import config

ROOT = Path(__file__).parent.parent
PACKAGE, TESTS = ROOT / "anomaly_lab", ROOT / "tests"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
COVERED_BY = {  # modules without a mirrored test: which one covers them
    "__main__.py": "test_main.py",
    "experiment/schema.py": "experiment/test_config.py",
}
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_floors_hold():
    lint = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_its_mirrored_test(module: Path):
    mirrored = module.parent / f"test_{module.name}"
    test = TESTS / COVERED_BY.get(module.as_posix(), mirrored)
    assert test.is_file(), f"anomaly_lab/{module} needs tests/{mirrored}"
    assert "\ndef test_" in test.read_text(), f"{test} holds no test"


def test_every_exception_is_one():
    assert {*COVERED_BY} <= {module.as_posix() for module in MODULES}
    mirrored = [TESTS / Path(module).parent / f"test_{Path(module).name}" for module in COVERED_BY]
    assert not any(test.exists() for test in mirrored)


def test_no_room_is_called_utils():
    names = {part for module in MODULES for part in module.with_suffix("").parts}
    assert not names & {"utils", "util", "common", "helpers", "misc", "core", "base"}


def test_there_are_experiments():
    assert EXPERIMENTS


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("budget", config.BUDGETS)
def test_every_experiment_loads_with_every_budget(path: Path, budget: str):
    experiment = config.load(path.stem, [f"budget={budget}"])
    assert (experiment.name, experiment.budget) == (path.stem, budget)
    assert dict(config.experiments())[path.stem]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_builds(path: Path):
    experiment = config.load(path.stem, ["budget=smoke"])
    config.build(experiment.detector)
    for callback in experiment.callbacks.values():
        config.build(callback)


def test_every_detector_has_an_experiment():
    targets = {config.load(path.stem, ["budget=smoke"]).detector["_target_"].rpartition(".")[0] for path in EXPERIMENTS}
    files = {f"anomaly_lab.detectors.{path.stem}" for path in (PACKAGE / "detectors").glob("[!_]*.py")}
    assert files <= targets
