"""Locks on files, also on file systems of clusters that have none."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock, SoftFileLock
from rich.console import Console
from rich.text import Text

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}  # NFS, Lustre without flock


@contextmanager
def lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock inside the block: one of the file system, which ends with its process.

    Where the file system has none, as NFS and Lustre are sometimes mounted, the existence of a file is the lock; it
    names host and process. What a killed process left is removed by the next one on the same host, elsewhere by hand.

    Args:
        path: the lock file; its folder must exist.
        wait: wait for another process that holds the lock.

    Raises:
        filelock.Timeout: another process holds it, and `wait` is false.
        OSError: the file cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, lock(Path(folder, ".lock")):
        ...     Path(folder, ".lock").exists()
        True
    """
    kind, place = (FileLock, path) if _has_locks(path) else (SoftFileLock, substitute(path))
    with kind(place, timeout=-1 if wait else 0):
        yield


def substitute(path: Path) -> Path:
    """Return the file that is the lock where the file system has none.

    Examples:
        >>> substitute(Path("runs/.lock"))
        PosixPath('runs/.lock.held')
    """
    return path.with_name(f"{path.name}.held")


def _has_locks(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            _warn(str(path.parent.absolute()))
            return False
    finally:
        os.close(descriptor)
    return True  # whether it is free, or held


@cache
def _warn(folder: str) -> None:
    """Say once for each folder that locks are replaced."""
    line = f"{folder}: this file system has no locks; files named *.lock.held take their place"
    Console(stderr=True).print(Text(line, style="yellow"), soft_wrap=True)
