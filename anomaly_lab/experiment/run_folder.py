"""The run folder: the record that is the truth. Everything in it is written atomically."""

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
RENAMED = {"floors": "baselines", "versus_floors": "versus_baselines", "judged": "scored"}  # keys of metrics.json


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file or nothing: a reader sees the old content or the new, whatever happens meanwhile.

    Raises:
        UserError: the disk is full, or the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; make room or choose another place") from error
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically; NaN is refused, for it is not JSON."""
    write_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file of the record; an absent file reads as empty."""
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def in_current_words(metrics: dict[str, Any]) -> dict[str, Any]:
    """The content of a metrics.json with today's keys, whenever it was written."""
    return {
        RENAMED.get(key, key): in_current_words(value) if isinstance(value, dict) else value
        for key, value in metrics.items()
    }


def create(runs: str, experiment: str, marks: tuple[str, ...]) -> Path:
    """A new run folder `<runs>/<experiment>/<start>-<marks>-<id>`; marks such as the budget and `twin`."""
    start = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    run = Path(runs) / experiment / "-".join((start, *marks, secrets.token_hex(2)))
    try:
        (run / "checkpoints").mkdir(parents=True)
        (run / "samples").mkdir()
    except OSError as error:
        raise UserError(f"cannot create the run folder {run}: {error.strerror}; set runs=<folder>") from error
    return run


def open_run(path: str) -> Path:
    """The run folder at `path`.

    Raises:
        UserError: there is none.
    """
    run = Path(path)
    if not (run / "config.yaml").is_file():
        raise UserError(
            f"{path} is not a run folder (no config.yaml in it); run folders are runs/<experiment>/<start>-…"
        )
    return run


def update_provenance(run: Path, **facts: object) -> None:
    """Add facts to the run's provenance.json."""
    write_json(run / "provenance.json", read_json(run / "provenance.json") | facts)


def provenance() -> dict[str, object]:
    """What this process runs on: code, versions, machine."""
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
    """This second, in UTC, as ISO 8601."""
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

    if not ask("ls-files", "run_folder.py"):  # installed: a repository around it is somebody else's
        return {"commit": None, "dirty": None}
    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
