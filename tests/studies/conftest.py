"""Runners that start a stub instead of a training, and a study of made-up scores."""

import sys
from pathlib import Path

import pytest
from study_runs import STUB, small_study, write_run

from anomaly_lab.studies import ledger
from anomaly_lab.studies.findings import Findings, read_findings
from anomaly_lab.studies.jobs import Local
from anomaly_lab.studies.plan import Key
from anomaly_lab.studies.runner import Runner


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes Runners whose command is the stub; `stub.calls()` tells what it was asked for."""
    script, log = tmp_path / "stub.py", tmp_path / "calls"
    script.write_text(STUB)
    monkeypatch.setenv("STUB_LOG", str(log))
    monkeypatch.setattr(ledger, "data_fingerprint", lambda section: "data")

    def make(jobs: int = 1, code: ledger.Code = "same") -> Runner:
        at = ledger.Ledger(tmp_path / "runs", code)
        return Runner(at, tmp_path / "logs", Local(jobs), said.append, (sys.executable, str(script)))

    said: list[str] = []
    make.said = said
    make.log = lambda name: next((tmp_path / "logs" / name).glob("*_log.out"))
    make.calls = lambda: log.read_text().splitlines() if log.exists() else []
    return make


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    """Of `small_study`: three rows and a hidden one, three seeds, one run of them missing."""
    runs = {
        Key(row, "set", seed): write_run(tmp_path / f"{row}{seed}", shift, seed)
        for row, shift in (("good", 2.5), ("fair", 1.0), ("poor", 0.2), ("base", 1.0))
        for seed in (0, 1, 2)
        if (row, seed) != ("poor", 2)
    }
    return read_findings(small_study(), runs, {Key("poor", "set", 2): "it broke"})
