"""The folder of a server's uploads, which leaves nothing behind: what a killed server left, the next one removes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "anomaly-lab-serve-"
_LOCK = "lock"  # held by the server; the system lets go of it when the server ends, however it does


class Workspace:
    """A folder that only this user can read, with a folder in it for every upload.

    Args:
        parent: where to make it; None for the system's folder of temporary files, see TMPDIR.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     workspace = Workspace(Path(parent))
        ...     with workspace.upload() as folder:
        ...         _ = (folder / "scan").write_bytes(b"a patient's")
        ...     before = sorted(path.name for path in workspace.folder.iterdir())
        ...     workspace.close()
        ...     before, list(Path(parent).iterdir())
        (['lock'], [])
    """

    def __init__(self, parent: Path | None = None) -> None:
        home = Path(tempfile.gettempdir()) if parent is None else parent
        self.removed = sum(map(_removed, home.glob(f"{PREFIX}*")))
        while True:
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=home))
            self._lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if (self.folder / _LOCK).exists():  # another server may have taken it for a killed one's just before
                return
            os.close(self._lock)

    @contextmanager
    def upload(self) -> Iterator[Path]:
        """Make a folder for an upload, and remove it with all that lies in it at the end of the block."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def _removed(folder: Path) -> bool:
    """Remove the folder of a server of this user that is no more; returns whether it was one."""
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its server is at work
        return False
    finally:
        os.close(lock)
    return True
