"""Making folders that are whole or absent, by one process at a time."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from anomaly_lab.types import UserError


@contextmanager
def locked(store_dir: Path, name: str) -> Iterator[None]:
    """Let one process at a time make something called `name` under `store_dir`."""
    store_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(store_dir / f".{name}.lock"):
        yield


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` if all goes well and vanishes otherwise."""
    shutil.rmtree(_work(folder), ignore_errors=True)  # of a process that was killed
    with resumed_folder(folder) as work:
        yield work


@contextmanager
def resumed_folder(folder: Path) -> Iterator[Path]:
    """Yield the folder that a killed process left, or an empty one; it becomes `folder` if all goes well.

    An error removes it; a kill or Ctrl-C leaves it to be resumed.
    """
    work = _work(folder)
    work.mkdir(parents=True, exist_ok=True)
    try:
        yield work
        work.rename(folder)
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        raise


@contextmanager
def disk_errors(store_dir: Path) -> Iterator[None]:
    """Say in one line that the disk is full or not writable, or that somebody deletes what is being written."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            fault = "disk full while building the store; make room"
        elif isinstance(error, FileNotFoundError):
            fault = "another process deleted the store while it was being built; start again"
        else:
            fault = f"the store cannot be written ({error.strerror or error}); make room"
        raise UserError(f"{store_dir}: {fault} or set data.store.folder to another disk") from error


def _work(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.tmp")
