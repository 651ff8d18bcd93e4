"""Only regular files are read: a pipe or a socket would keep us waiting, and a device such as /dev/zero never ends."""

import errno
import stat
from pathlib import Path


def regular(path: Path) -> Path:
    """Return a path that is about to be opened for reading, if what it leads to can be read to its end.

    Raises:
        OSError: it leads to nothing, or to a folder, pipe, socket or device. So whoever reports a file that cannot be
            read reports these, too.

    Examples:
        >>> regular(Path("/dev/zero"))
        Traceback (most recent call last):
            ...
        OSError: [Errno 22] it is no file: '/dev/zero'
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return path
