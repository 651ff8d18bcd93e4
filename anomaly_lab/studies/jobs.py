"""Jobs: commands of anomaly_lab that submitit starts on this machine or queues on a SLURM cluster.

A job outlives the study that submitted it. What it does is written down as a claim, so that another study, or the same
one taken up again, waits for it instead of doing the same.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil
import submitit
from joblib import cpu_count  # what affinity and cgroups leave of os.cpu_count()

from anomaly_lab.experiment.locks import lock
from anomaly_lab.experiment.regular import regular
from anomaly_lab.experiment.run_folder import read_json, write_json
from anomaly_lab.types import UserError

Kind = Literal["local", "slurm"]
GRACE = 20.0  # seconds a run has to write its checkpoint before it is asked again to stop
A_YEAR = 365 * 24 * 60  # minutes
WARNING = 120  # seconds before the time limit at which a job of SLURM is told, at most a quarter of the limit
UNITS = {"m": 1, "h": 60, "d": 24 * 60}  # in minutes


@dataclass(frozen=True)
class Job:
    """A command that was started or queued.

    Attributes:
        kind: of the launcher.
        id: job id of SLURM; on this machine the id of the process that supervises the command.
        run: the run folder it works on.
        log: file of all its output.
        host: where it was submitted.
        began: when its process began, in seconds since 1970; 0 on a cluster.
    """

    kind: Kind
    id: str
    run: str
    log: str
    host: str = field(default_factory=socket.gethostname)
    began: float = 0.0

    def last_line(self) -> str:
        """Return the last line of its log, without submitit's own; empty without any."""
        with suppress(OSError):
            lines = [line.strip() for line in regular(Path(self.log)).read_text(errors="replace").splitlines()]
            return next((line for line in reversed(lines) if line and not line.startswith("submitit ")), "")
        return ""


@dataclass(frozen=True)
class Task:
    """A command to be made a job.

    Attributes:
        name: of the job.
        command: the command line.
        run: the run folder it works on.
        logs: folder for its log and submitit's files.
        trainer: the section `trainer` of the run, which says how many processes it wants.
        after: jobs that must succeed before it begins.
    """

    name: str
    command: Sequence[str]
    run: Path
    logs: Path
    trainer: Mapping[str, Any] = field(default_factory=dict)
    after: Sequence[Job] = ()


class Launcher(Protocol):
    """Starts or queues jobs.

    Attributes:
        jobs: number of jobs at the same time; None for no limit.
        queues: whether a job can be submitted that waits for others.
        pause: seconds between two looks at the jobs.
    """

    jobs: int | None
    queues: bool
    pause: float

    def submit(self, task: Task) -> Job:
        """Start or queue a command.

        Raises:
            UserError: it was refused.
        """

    def leave(self, jobs: Sequence[Job]) -> str:
        """Do what is to be done with unfinished jobs when the study is interrupted, and return what that was."""


class Local:
    """Starts processes on this machine; they end with the study.

    Args:
        jobs: number of processes at the same time; they share the CPU cores that the study itself may use: those of its
            container and of `taskset`, and no more threads than OMP_NUM_THREADS.

    Examples:
        >>> Local(jobs=2).queues
        False
    """

    queues = False
    pause = 0.1

    def __init__(self, jobs: int = 1) -> None:
        self.jobs: int | None = jobs
        given = os.environ.get("OMP_NUM_THREADS", "")
        cores = min(cpu_count(), int(given)) if given.isdigit() and int(given) else cpu_count()
        self._threads = str(max(1, cores // jobs))

    def submit(self, task: Task) -> Job:
        executor = submitit.LocalExecutor(task.logs)
        executor.update_parameters(timeout_min=A_YEAR, stderr_to_stdout=True)
        kept = {  # submitit hides all GPUs; the threads are a share of those that the study was given
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "OMP_NUM_THREADS": self._threads,
        }
        with _without_ctrl_c():
            job = executor.submit(become, list(task.command), kept, {}, own_session=True)
        _CHILDREN[job.job_id] = job
        began = psutil.Process(int(job.job_id)).create_time()
        return Job("local", job.job_id, str(task.run), str(job.paths.stdout), began=began)

    def leave(self, jobs: Sequence[Job]) -> str:
        own = [job for job in jobs if job.id in _CHILDREN]
        while own:
            for job in own:
                with suppress(ProcessLookupError):
                    os.kill(int(job.id), signal.SIGTERM)  # its supervisor hands it on to the command
            asked = time.monotonic()
            while (own := [job for job in own if job.id in states(own)]) and time.monotonic() < asked + GRACE:
                time.sleep(self.pause)
        return "its runs have stopped; the same command takes it up again"


@dataclass
class Slurm:
    """Queues jobs on a SLURM cluster; they go on without the study.

    Attributes:
        time: limit of a job in minutes. A run that needs longer is requeued as often as it takes.
        partition: the partition; None for the cluster's default.
        gpus: GPUs for each node of a job.
        cpus: CPU cores for each process of a job.
        sbatch: other options of sbatch, without the dashes.
        jobs: number of jobs in the queue at the same time; None for no limit.

    Examples:
        >>> Slurm(time=minutes("4h"), partition="gpu", gpus=1, sbatch={"account": "lab"}).queues
        True
    """

    time: int = 240
    partition: str | None = None
    gpus: int = 0
    cpus: int = 2
    sbatch: dict[str, Any] = field(default_factory=dict)
    jobs: int | None = None

    queues = True
    pause = 5.0

    def submit(self, task: Task) -> Job:
        devices = task.trainer.get("devices")
        options = {"signal": f"USR1@{min(WARNING, self.time * 60 // 4)}", "requeue": True, "kill-on-invalid-dep": "yes"}
        parameters = {
            "job_name": task.name,
            "time": self.time,
            "partition": self.partition,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "nodes": task.trainer.get("num_nodes") or 1,
            "ntasks_per_node": devices if isinstance(devices, int) and devices > 0 else 1,
            "dependency": f"afterok:{':'.join(job.id for job in task.after)}" if task.after else None,
            "srun_args": ["--kill-on-bad-exit=1"],
            "stderr_to_stdout": True,
            "additional_parameters": {**options, **self.sbatch},
        }
        try:
            executor = submitit.SlurmExecutor(task.logs)
            executor.update_parameters(**{key: value for key, value in parameters.items() if value is not None})
            job = executor.submit(become, list(task.command), {}, {"OMP_NUM_THREADS": str(self.cpus)})
        except (RuntimeError, OSError) as error:  # no srun, or sbatch said no
            said = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UserError(f"launcher=slurm: {said}") from error
        return Job("slurm", job.job_id, str(task.run), str(job.paths.stdout))

    def leave(self, jobs: Sequence[Job]) -> str:
        ids = " ".join(job.id for job in jobs)
        return f"its jobs go on; the same command takes it up again, STATUS=1 looks at it, scancel {ids} ends them"


def become(
    command: Sequence[str], kept: Mapping[str, str | None], defaults: Mapping[str, str], own_session: bool = False
) -> None:
    """Replace this process by a command, which thus gets the job's signals and gives it its exit status.

    Args:
        command: the command line.
        kept: variables of the environment as they were where the job was submitted; None for one that was not set.
        defaults: variables to set where they are not.
        own_session: whether it gets no Ctrl-C from a terminal.
    """
    if own_session:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    environment = {**defaults, **os.environ, **{name: value for name, value in kept.items() if value is not None}}
    for name in (name for name, value in kept.items() if value is None):
        environment.pop(name, None)
    os.execvpe(command[0], list(command), environment)


def states(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the states of all jobs that have not ended, by job id.

    Examples:
        >>> states([])
        {}
    """
    found = {job.id: "runs" for job in jobs if job.kind == "local" and _is_alive(job)}
    if queued := [job for job in jobs if job.kind == "slurm"]:
        found |= _of_queue(queued)
    return found


class Claims:
    """Notes which job does what, by fingerprints, for all studies that share a folder of runs.

    Args:
        folder: for the notes.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     claims = Claims(Path(folder))
        ...     with claims.locked("c0ffee"):
        ...         claims.write("c0ffee", Job("slurm", "12", run="runs/a/1", log="log"))
        ...     claims.read("c0ffee").id
        '12'
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep other studies from looking at, or making, this claim inside the block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with lock(self.folder / f"{name}.lock"):
            yield

    def read(self, name: str) -> Job | None:
        """Return the job that claimed it last; None without any, or if the note cannot be read."""
        with suppress(UserError, TypeError):
            return Job(**facts) if (facts := read_json(self.folder / f"{name}.json")) else None
        return None

    def write(self, name: str, job: Job) -> None:
        """Note a job."""
        write_json(self.folder / f"{name}.json", asdict(job))

    def remove(self, name: str) -> None:
        """Forget a job."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)


def minutes(text: str) -> int:
    """Parse a time limit.

    Args:
        text: a whole number with its unit, "m", "h" or "d".

    Raises:
        UserError: it is none.

    Examples:
        >>> minutes("90m"), minutes("4h"), minutes("2d")
        (90, 240, 2880)
    """
    match = re.fullmatch(r"([1-9]\d{0,5})([mhd])", text)
    if match is None:
        raise UserError(f"time={text}: takes a number with its unit, such as 90m, 4h or 2d")
    return int(match[1]) * UNITS[match[2]]


_CHILDREN: dict[str, Any] = {}  # submitit's jobs on this machine, by id: their processes are to be waited for


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Make processes that are started inside the block deaf to the terminal's Ctrl-C; the study stops them itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_alive(job: Job) -> bool:
    if job.host != socket.gethostname():
        return False
    if job.id in _CHILDREN:
        return not _CHILDREN[job.id].done()
    with suppress(psutil.Error):
        process = psutil.Process(int(job.id))
        return bool(abs(process.create_time() - job.began) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _of_queue(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the states of jobs in SLURM's queue; if it does not answer, all are taken to be there."""
    words = ["squeue", "--noheader", "--me", "--format=%i|%T|%r|%N"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    except FileNotFoundError as error:
        raise UserError(f"{shlex.join(words[:1])}: there is no SLURM on this host") from error
    except (OSError, subprocess.SubprocessError):
        return {job.id: "the queue does not answer" for job in jobs}
    wanted, found = {job.id for job in jobs}, dict[str, str]()
    for line in answer.splitlines():
        id, state, reason, nodes = (line.split("|", 3) + [""] * 3)[:4]
        if id in wanted:
            found[id] = f"runs on {nodes}" if state == "RUNNING" else f"{state.lower()} ({reason})"
    return found
