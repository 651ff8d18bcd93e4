"""The scripts also end well where there are too few patients for an interval, or no normals for a threshold."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import anomaly_lab as al

EXAMPLES = Path(__file__).parents[2] / "examples"
FEW = {"value": 0.75, "low": None, "high": None}
RUN = SimpleNamespace(
    metrics={
        "detector": {"auroc": FEW},
        "baselines": {"pca_32": {"auroc": FEW}},
        "versus_baselines": {"best": "pca_32", "difference": FEW, "sentence": "Too few patients."},
    },
    provenance={"source": "real"},
    report=Path("report.html"),
)
SCORED = SimpleNamespace(score=1.0, p_value=None, is_anomalous=None)
SCORER = SimpleNamespace(threshold=None, normals=[], score=lambda path: SCORED)


def printed(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(al, "train", lambda *words, **settings: RUN, raising=False)
    monkeypatch.setattr(al, "load", lambda run: SCORER, raising=False)
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize(("name", "words", "line"), [
    ("compare_detectors.py", ["folder", "pca"], "(pca_32)         0.750 (too few patients for an interval)"),
    ("train_on_your_pictures.py", ["pictures"], "AUROC 0.750 (too few patients for an interval)"),
    ("score_new_pictures.py", ["runs/a", "new.png"], "new.png: score 1"),
])  # fmt: skip
def test_a_script_says_what_there_is(
    name: str, words: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line in printed(name, words, monkeypatch, capsys).splitlines()


def test_so_do_the_cells_of_the_notebook() -> None:
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {"run": RUN, "path": Path("a.png"), "scored": SCORED}
    exec(next(source for source in sources if "AUROC" in source), names)
    exec(next(line for source in sources for line in source.splitlines() if "scored.p_value" in line).strip(), names)
