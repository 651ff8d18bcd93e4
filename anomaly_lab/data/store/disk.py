"""Atomic creation of folders, by one process at a time: a folder is either complete or absent."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomaly_lab.experiment.locks import lock
from anomaly_lab.types import UserError


@contextmanager
def locked(store_dir: Path, name: str) -> Iterator[None]:
    """Hold the lock for creating `name` in `store_dir`; other processes wait.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder), "headct"):
        ...     (Path(folder) / ".headct.lock").exists()
        True
    """
    store_dir.mkdir(parents=True, exist_ok=True)
    with lock(store_dir / f".{name}.lock"):
        yield


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `folder` on success and removed on an error.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     target = Path(parent) / "twin"
        ...     with fresh_folder(target) as work:
        ...         (work / "a.png").touch()
        ...         before = target.exists()
        ...     before, (target / "a.png").exists()
        (False, True)
    """
    shutil.rmtree(_work(folder), ignore_errors=True)  # may be left from a process that was killed
    with resumed_folder(folder) as work:
        yield work


@contextmanager
def resumed_folder(folder: Path) -> Iterator[Path]:
    """Yield the folder left by a killed process, or an empty one; it is renamed to `folder` on success.

    An error removes it; after a kill or Ctrl-C it is kept, so that the next process can resume.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     (Path(parent) / ".store.tmp").mkdir()
        ...     (Path(parent) / ".store.tmp" / "rows").touch()  # left by a killed process
        ...     with resumed_folder(Path(parent) / "store") as work:
        ...         [path.name for path in work.iterdir()]
        ['rows']
    """
    work = _work(folder)
    if work.is_symlink() or any(path.is_symlink() for path in work.glob("*")):
        raise UserError(f"{work} is, or holds, a link, and would be written through it; delete it")
    work.mkdir(parents=True, exist_ok=True)
    try:
        yield work
        work.rename(folder)
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        raise


@contextmanager
def disk_errors(
    folder: Path, work: str = "building the store", remedy: str = "set data.store.folder to another disk"
) -> Iterator[None]:
    """Convert an OSError into a one-line UserError: disk full, not writable, or the files were deleted meanwhile.

    Args:
        folder: the folder that is written.
        work: what is done there, for the message.
        remedy: what can be done besides mending the folder, as an imperative.

    Examples:
        >>> try:
        ...     with disk_errors(Path(".store")):
        ...         raise OSError(errno.ENOSPC, "No space left on device")
        ... except UserError as error:
        ...     print(error)
        .store: disk full while building the store; free some space or set data.store.folder to another disk
        >>> with disk_errors(Path("out"), "writing the scores", "choose another folder with --out"):
        ...     raise OSError(errno.EROFS, "Read-only file system")
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: out: cannot be written (Read-only file system) while writing the scores; make ...
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            fault = f"disk full while {work}; free some space"
        elif isinstance(error, FileNotFoundError):
            fault = f"another process deleted files while {work}; start again"
        else:
            fault = f"cannot be written ({error.strerror or error}) while {work}; make the folder writable"
        raise UserError(f"{folder}: {fault} or {remedy}") from error


def _work(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.tmp")
