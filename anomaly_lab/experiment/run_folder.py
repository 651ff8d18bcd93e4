"""The run folder, which holds everything known about a run. All of its files are written atomically."""

import contextlib
import glob
import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from filelock import Timeout

from anomaly_lab.experiment.locks import lock, substitute
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import UserError

PACKAGES = (
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "monai",
    "albumentations",
    "numpy",
    "scikit-learn",
    "wandb",
)
_WORK = ".making"  # in the names of run folders that are not whole yet
RENAMED = {
    "floors": "baselines",
    "versus_floors": "versus_baselines",
    "judged": "scored",
}  # keys of older metrics.json files


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file atomically: readers see either the old or the new content, even after a crash.

    A link at `path` is replaced by the file; what it points to is left alone.

    Args:
        path: the file; its folder must exist.
        content: bytes, or text to be encoded as UTF-8.

    Raises:
        UserError: the disk is full, or the location is not writable.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "note.txt")
        ...     write_atomic(path, "done")
        ...     path.read_text()
        'done'
    """
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        with disk_errors(path):
            for left in _left_by_dead(path.parent, f".{glob.escape(path.name)}.", ".partial"):
                left.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
            with partial.open("xb") as file:  # a new file: not what a link leads to
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # the error above says more
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Convert an OSError inside the block into a UserError that names the file that could not be written.

    Examples:
        >>> with disk_errors(Path("log.txt")):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: cannot write log.txt: No space left on device; free disk space or choose ...
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free disk space or choose another location"
        ) from error


def no_link(path: str, flags: int) -> int:
    """Open a file, but no link to one; the `opener` of `open` for what is appended to."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file of a run folder, which must not be a link.

    Raises:
        UserError: the disk is full, the location is not writable, or the file is a link.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     append_line(Path(folder, "log"), "a")
        ...     append_line(Path(folder, "log"), "b")
        ...     Path(folder, "log").read_text().split()
        ['a', 'b']
    """
    try:
        with open(path, "a", encoding="utf-8", opener=no_link) as file:
            file.write(f"{line}\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; free disk space or remove a link") from error


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically.

    Raises:
        ValueError: the content has NaN or an infinity, which JSON does not allow.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder, "a.json"), {"auroc": 0.5})
        ...     read_json(Path(folder, "a.json"))
        {'auroc': 0.5}
    """
    write_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str = "restore it from a copy of the run folder") -> dict[str, Any]:
    """Read a JSON file of a run folder; a missing file yields an empty mapping.

    Args:
        path: the file.
        remedy: what to do about a damaged one, for the message.

    Raises:
        UserError: the file is damaged.

    Examples:
        >>> read_json(Path("no such file.json"))
        {}
    """
    try:
        content = json.loads(regular(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        if not isinstance(content, dict):
            raise ValueError("it holds no mapping")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from error
    return content


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def in_current_words(metrics: dict[str, Any]) -> dict[str, Any]:
    """Convert the keys of an older metrics.json to current ones.

    Examples:
        >>> in_current_words({"floors": {"pca32": {}}})
        {'baselines': {'pca32': {}}}
    """
    return {
        RENAMED.get(key, key): in_current_words(value) if isinstance(value, dict) else value
        for key, value in metrics.items()
    }


def new_place(runs: str | Path, experiment: str, marks: tuple[str, ...]) -> Path:
    """Choose a run folder that does not exist, `<runs>/<experiment>/<now>-<marks>-<id>`.

    Examples:
        >>> new_place("runs", "ganomaly_headct", ("laptop", "twin")).parent
        PosixPath('runs/ganomaly_headct')
    """
    return (
        Path(runs) / experiment / "-".join((datetime.now(UTC).strftime("%Y%m%d-%H%M%S"), *marks, secrets.token_hex(2)))
    )


def refuse_here(place: Path) -> None:
    """Refuse the folder that the process is in, or one above: what is made elsewhere and renamed cannot replace it.

    Raises:
        UserError: it is.
    """
    if Path.cwd().is_relative_to(place.resolve()):
        raise UserError(f"{place}: this is the folder you are in, or above it; name a new folder, such as {place}/new")


@contextlib.contextmanager
def create(run: Path) -> Iterator[Path]:
    """Make a run folder, whole or not at all.

    Args:
        run: its place; there may be an empty folder.

    Yields:
        A folder to fill, with empty sub-folders `checkpoints` and `samples`. At the end of the block it becomes the run
        folder; after an error, or a kill, there is none.

    Raises:
        UserError: the folder cannot be created.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as runs:
        ...     run = new_place(runs, "ganomaly_headct", ("laptop", "twin"))
        ...     with create(run):
        ...         before = run.exists()
        ...     before, sorted(path.name for path in run.iterdir())
        (False, ['checkpoints', 'samples'])
    """
    work = run.with_name(f".{run.name}{_WORK}.{socket.gethostname()}.{os.getpid()}")
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(run.parent)
        for name in ("checkpoints", "samples"):
            (work / name).mkdir(parents=True)
        yield work
        work.rename(run)
    except OSError as error:
        raise UserError(
            f"cannot create the run folder {run}: {error.strerror}; choose another place: runs=<folder>, or --into"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine left that were killed inside `create`."""
    for left in _left_by_dead(folder, f".*{_WORK}."):
        shutil.rmtree(left, ignore_errors=True)


def _left_by_dead(folder: Path, before: str, after: str = "") -> list[Path]:
    """Return what ended processes of this host left, named `<before><host>.<pid><after>`; `before` is a pattern."""
    start = f"{before}{glob.escape(socket.gethostname())}."
    named = ((path, path.name.removesuffix(after).rpartition(".")[2]) for path in folder.glob(f"{start}*{after}"))
    return [path for path, pid in named if pid.isdecimal() and not psutil.pid_exists(int(pid))]


def remove_partial_files(run: Path) -> None:
    """Remove what killed processes left of files that were being written; the caller holds the run's lock."""
    for partial in run.rglob(".*.partial"):
        partial.unlink(missing_ok=True)


def refuse_taken(place: Path) -> None:
    """Check that a run can be created at a place chosen beforehand.

    Raises:
        UserError: there is something else than a run.

    Examples:
        >>> refuse_taken(Path("no/such/folder"))
    """
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise UserError(f"{place} exists and is not a run folder (no config.yaml in it); choose another place")


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes from training or evaluating a run inside the block.

    Raises:
        UserError: another process does so.
    """
    with contextlib.ExitStack() as held:
        try:
            if (run / ".lock").is_symlink():
                (run / ".lock").unlink()  # taking the lock would empty what it leads to
            held.enter_context(lock(run / ".lock", wait=False))
        except Timeout as error:
            note = substitute(run / ".lock")
            left = f", or delete {note} if none is at work on another machine either" if note.exists() else ""
            raise UserError(f"{run} is in use by another process; wait for it or stop it{left}") from error
        except OSError as error:
            raise UserError(f"{run} cannot be locked: {error.strerror}; make the folder writable") from error
        yield


def open_run(path: str) -> Path:
    """Return the run folder at `path`.

    Raises:
        UserError: it has no config.yaml, or a link to a folder in it, through which files outside would be written.

    Examples:
        >>> open_run("nowhere")
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: nowhere is not a run folder (no config.yaml in it); run folders are ...
    """
    run = Path(path)
    if not (run / "config.yaml").is_file():
        raise UserError(
            f"{path} is not a run folder (no config.yaml in it); run folders are runs/<experiment>/<start>-…"
        )
    for folder, names, _ in os.walk(run):
        for link in (Path(folder, name) for name in names if Path(folder, name).is_symlink()):
            if not link.resolve().is_relative_to(run.resolve()):
                raise UserError(f"{link} is a link out of the run folder; replace it by the folder that it leads to")
    return run


def update_provenance(run: Path, **facts: object) -> None:
    """Add or replace facts in the run's provenance.json.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     update_provenance(Path(folder), seed=0)
        ...     update_provenance(Path(folder), finished=None)
        ...     read_json(Path(folder, "provenance.json"))
        {'seed': 0, 'finished': None}
    """
    write_json(run / "provenance.json", read_json(run / "provenance.json") | facts)


def provenance() -> dict[str, object]:
    """Return the facts about this process: start, command, commit, package versions, machine, threads.

    Examples:
        >>> list(provenance())
        ['started', 'command', 'git', 'versions', 'machine', 'threads']
    """
    import torch

    return {
        "started": now(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": _git(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "ram_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "threads": torch.get_num_threads(),
    }


def now() -> str:
    """Return the current time in UTC as ISO 8601, to the second.

    Examples:
        >>> len(now())  # such as 2026-01-31T12:00:00+00:00
        25
    """
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _git() -> dict[str, object]:
    def ask(*words: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        with contextlib.suppress(OSError):
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            return answer.stdout.strip() if answer.returncode == 0 else None
        return None

    if not ask("ls-files", "run_folder.py"):  # installed from a wheel: a repository around it is not this project's
        return {"commit": None, "dirty": None}
    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
