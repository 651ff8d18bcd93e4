"""The run folder, which holds everything known about a run. All of its files are written atomically."""

import contextlib
import json
import os
import platform
import secrets
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

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
RENAMED = {
    "floors": "baselines",
    "versus_floors": "versus_baselines",
    "judged": "scored",
}  # keys of older metrics.json files


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file atomically: readers see either the old or the new content, even after a crash.

    Args:
        path: the file; its folder must exist.
        content: bytes, or text to be encoded as UTF-8.

    Raises:
        UserError: the disk is full, or the location is not writable.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "note.txt")
        ...     write_atomic(path, "done")
        ...     path.read_text()
        'done'
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free disk space or choose another location"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically.

    Raises:
        ValueError: the content has NaN or an infinity, which JSON does not allow.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder, "a.json"), {"auroc": 0.5})
        ...     read_json(Path(folder, "a.json"))
        {'auroc': 0.5}
    """
    write_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run folder; a missing file yields an empty mapping.

    Example:
        >>> read_json(Path("no such file.json"))
        {}
    """
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def in_current_words(metrics: dict[str, Any]) -> dict[str, Any]:
    """Convert the keys of an older metrics.json to current ones.

    Example:
        >>> in_current_words({"floors": {"pca32": {}}})
        {'baselines': {'pca32': {}}}
    """
    return {
        RENAMED.get(key, key): in_current_words(value) if isinstance(value, dict) else value
        for key, value in metrics.items()
    }


def create(runs: str, experiment: str, marks: tuple[str, ...]) -> Path:
    """Create the run folder `<runs>/<experiment>/<start>-<marks>-<id>`.

    Args:
        runs: parent folder.
        experiment: name of the experiment.
        marks: parts of the folder's name, such as the budget and "twin".

    Returns:
        The new folder, with empty sub-folders `checkpoints` and `samples`.

    Raises:
        UserError: the folder cannot be created.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as runs:
        ...     run = create(runs, "ganomaly_headct", ("laptop", "twin"))
        ...     "-laptop-twin-" in run.name, sorted(path.name for path in run.iterdir())
        (True, ['checkpoints', 'samples'])
    """
    start = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    run = Path(runs) / experiment / "-".join((start, *marks, secrets.token_hex(2)))
    try:
        (run / "checkpoints").mkdir(parents=True)
        (run / "samples").mkdir()
    except OSError as error:
        raise UserError(f"cannot create the run folder {run}: {error.strerror}; set runs=<folder>") from error
    return run


def open_run(path: str) -> Path:
    """Return the run folder at `path`.

    Raises:
        UserError: it has no config.yaml.

    Example:
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
    return run


def update_provenance(run: Path, **facts: object) -> None:
    """Add or replace facts in the run's provenance.json.

    Example:
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

    Example:
        >>> list(provenance())
        ['started', 'command', 'git', 'versions', 'machine', 'threads']
    """
    import psutil
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

    Example:
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
