"""Runners that start a stub instead of a training."""

import sys
from pathlib import Path

import pytest
from study_runs import STUB

from anomaly_lab.studies import ledger
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
        return Runner(at, tmp_path / "logs", jobs, said.append, (sys.executable, str(script)))

    said: list[str] = []
    make.said = said
    make.calls = lambda: log.read_text().splitlines() if log.exists() else []
    return make
