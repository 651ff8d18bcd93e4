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
    work = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    work.mkdir(parents=True)
    try:
        yield work
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def disk_errors(store_dir: Path) -> Iterator[None]:
    """Say in one line that the disk is full or not writable."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        reason = error.strerror or error
        fault = "disk full while building the store" if full else f"the store cannot be written ({reason})"
        raise UserError(f"{store_dir}: {fault}; make room or set data.store_dir to another disk") from error
