"""The house rules that no single room can test: baselines, mirrored tests, experiments that load."""

import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_lab.experiment import compose

ROOT = Path(__file__).parent.parent
PACKAGE, TESTS = ROOT / "anomaly_lab", ROOT / "tests"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
COVERED_BY = {  # modules without a mirrored test: which one covers them
    "__main__.py": "test_main.py",
}


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


def modules(section: str, names: dict[str, str]) -> set[str]:
    return {str(layer.values[section]["_target_"]).rpartition(".")[0] for name in names for layer in layers(name)
            if "_target_" in layer.values.get(section, {})}  # fmt: skip


def layers(name: str) -> list[compose.Layer]:
    return compose.layers_of(f"{name}_headct" if name in compose.detectors() else f"kde_{name}")


def test_every_detector_and_every_data_set_has_a_file_with_a_comment():
    for room, section, known in (
        ("detectors", "detector", compose.detectors()),
        ("data/datasets", "data", compose.datasets()),
    ):
        assert all(known.values())
        files = {path for path in (PACKAGE / room).glob("[!_]*.py") if "class " in path.read_text()}
        names = {f"anomaly_lab.{room.replace('/', '.')}.{path.stem}" for path in files}
        assert names - modules(section, known) <= {"anomaly_lab.data.datasets.mias_info"}
