"""Jobs of SLURM go back into the queue when they are stopped, and then go on with their run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from anomaly_lab.types import Stopped, UserError

WARNINGS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
PATIENCE = 60  # seconds that SLURM's controller may take to answer


@contextmanager
def requeued(run: Path) -> Iterator[None]:
    """Put this job back into the queue if a signal stops the work inside the block; does nothing outside SLURM.

    SLURM sends a signal before the time limit (`--signal=USR1@120`) and before pre-emption (SIGTERM); the job still
    counts as running then. After `scancel` it does not, and is left alone. A job that has been requeued and is stopped
    again without a new checkpoint is not requeued once more: its time limit is too short.

    Args:
        run: the run folder that the work is about; it need not exist.

    Raises:
        Stopped: a signal came.
        UserError: a signal came, and the job is not to be requeued once more.

    Examples:
        >>> with requeued(Path("runs/fanogan_headct/night")):
        ...     pass  # train, or go on
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        yield
        return
    for number in WARNINGS:  # the imports take a while; a training installs handlers of its own
        signal.signal(number, _stop)
    before = None
    try:
        before = _iterations(run)
        yield
    except Stopped as stopped:
        if _is_running(job):
            if os.environ.get("SLURM_RESTART_COUNT", "0") != "0" and _iterations(run) == before:
                raise UserError(
                    f"{run}: job {job} was requeued and stopped again without a checkpoint; ask for more --time"
                ) from stopped
            _requeue(job)
        raise


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _iterations(run: Path) -> str | None:
    """Return how the name of the run's newest checkpoint begins, the number of its iterations."""
    from anomaly_lab.experiment.checkpoint_files import by_age

    return next((path.name.partition("-")[0] for path in by_age(run / "checkpoints")), None)


def _is_running(job: str) -> bool:
    """Return whether a job is neither ending nor cancelled."""
    return "JobState=RUNNING" in _ask("show", "job", "--oneliner", job).split()


def _requeue(job: str) -> None:
    """Requeue a job. Every process of it asks: the first one to end would otherwise take the others along."""
    _say(f"job {job} goes back into the queue")
    _ask("requeue", job)


def _ask(*words: str) -> str:
    """Return what SLURM's controller answers, nothing where it cannot be asked."""
    try:
        answer = subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        _say(f"scontrol {words[0]}: {error}")
        return ""
    return answer.stdout


def _say(line: str) -> None:
    from anomaly_lab.pipeline.console import say

    say(line)
