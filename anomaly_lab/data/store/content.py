"""What a file contains, told by a sample of its bytes: names, sizes and times may be those of another file."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

from anomaly_lab.experiment.regular import regular

BLOCK = 2**14  # bytes read at the beginning, in the middle and at the end; smaller files are read whole


def sampled(paths: Iterable[Path]) -> bytes:
    """Return a hash of samples of the bytes of some files, 16 bytes; what cannot be read counts as empty.

    A picture takes 40 to 110 microseconds where the disk's cache has it, at most a tenth of what decoding it takes.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (path := Path(folder) / "a.pgm").write_bytes(bytes(2**20))
        ...     before = sampled([path])
        ...     path.write_bytes(bytes(2**20 - 1) + b"!")
        ...     before == sampled([path])
        1048576
        1048576
        False
    """
    digest = hashlib.sha256()
    for path in paths:
        with contextlib.suppress(OSError), regular(path).open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            for place in (0, (size - BLOCK) // 2, size - BLOCK) if size > 3 * BLOCK else range(0, size, BLOCK):
                file.seek(place)
                digest.update(file.read(BLOCK))
        digest.update(b"|")
    return digest.digest()[:16]
