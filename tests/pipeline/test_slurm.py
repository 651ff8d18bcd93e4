"""A job of SLURM that is stopped goes back into the queue, unless it was cancelled or never comes forward."""

import os
import signal
from pathlib import Path

import pytest

from anomaly_lab.pipeline import slurm
from anomaly_lab.types import Stopped, UserError

SCONTROL = """#!/bin/sh
echo "$@" >> "$ASKED"
[ "$1" = show ] && echo "JobId=7 JobState=$STATE Reason=None"
exit 0
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the controller was asked to do by this process, which is job 7."""
    before = {number: signal.getsignal(number) for number in slurm.WARNINGS}
    (tmp_path / "scontrol").write_text(SCONTROL)
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in (("SLURM_JOB_ID", "7"), ("STATE", "RUNNING"), ("ASKED", str(tmp_path / "asked"))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    yield lambda: (tmp_path / "asked").read_text().splitlines()[1:] if (tmp_path / "asked").exists() else None
    for number, handler in before.items():
        signal.signal(number, handler)


def stop(run: Path, number: int = signal.SIGUSR1, iterations: int | None = None) -> None:
    """A training into `run` that is stopped, after so many iterations."""

    def work() -> None:
        if iterations is not None:
            (run / "checkpoints").mkdir(parents=True, exist_ok=True)
            (run / "checkpoints" / f"{iterations:08d}-0123456789abcdef.ckpt").touch()
        os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as stopped, slurm.requeued(run):
        work()
    assert stopped.value.code == 128 + number


@pytest.mark.parametrize("number", slurm.WARNINGS)
def test_a_stopped_job_is_requeued(asked, tmp_path: Path, number: int) -> None:
    stop(tmp_path / "run", number)
    assert asked() == ["requeue 7"]


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", ""])
def test_a_cancelled_job_is_not_requeued(asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setenv("STATE", state)
    stop(tmp_path / "run", signal.SIGTERM)
    assert asked() == []


def test_a_requeued_job_that_does_not_come_forward_is_not_requeued_again(
    asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    stop(tmp_path / "run", iterations=3)
    stop(tmp_path / "run", iterations=6)
    assert asked() == ["requeue 7", "show job --oneliner 7", "requeue 7"]
    with pytest.raises(UserError, match="job 7 was requeued and stopped again without a checkpoint"):
        stop(tmp_path / "run")
    assert len(asked()) == 4


def test_an_error_or_an_end_requeues_nothing(asked, tmp_path: Path) -> None:
    with slurm.requeued(tmp_path):
        pass
    with pytest.raises(UserError), slurm.requeued(tmp_path):
        raise UserError("no")
    assert asked() is None


def test_without_scontrol_the_signal_still_ends_the_work(
    asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    stop(tmp_path / "run")
    assert asked() is None


def test_outside_slurm_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with slurm.requeued(tmp_path):
        assert signal.getsignal(signal.SIGTERM) is before
