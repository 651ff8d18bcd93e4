"""Decodes compressed DICOM pixels in a process of its own: decoders in C++ end their process on some damaged files.

GDCM does so on one byte of a JPEG file that is changed, and no Python code can catch that.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from anomaly_lab.data.readers import dicom_decoder as d; d.serve()"
_LENGTH = 8  # bytes of the number before each answer; an answer of length 0 says that a frame cannot be decoded
_lock = threading.Lock()
_children: dict[int, subprocess.Popen[bytes]] = {}  # by process: a fork does not share its parent's


def decode(path: Path, number: int) -> np.ndarray:
    """Return the stored pixels of a frame, [rows, columns] or, in colour, [rows, columns, 3].

    Args:
        path: the file.
        number: the frame, from 0.

    Raises:
        ValueError: the frame cannot be decoded.

    Examples:
        >>> from pydicom.data import get_testdata_file
        >>> decode(Path(get_testdata_file("CT_small.dcm")), 0).shape
        (128, 128)
    """
    for _ in range(2):  # a decoder that ends twice ends because of this file
        with _lock:
            try:
                answer = _ask({"path": str(path.absolute()), "frame": number})
            except OSError:
                _end()
                continue
        if not answer:
            raise ValueError("the decoder refuses")
        return np.asarray(np.load(io.BytesIO(answer), allow_pickle=False))
    raise ValueError("the decoder ends")


def serve() -> None:
    """Answer requests on the standard input until it is closed; what decoders print is kept apart."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        for line in sys.stdin.buffer:
            answer = _answer(**json.loads(line))
            answers.write(len(answer).to_bytes(_LENGTH, "little") + answer)
            answers.flush()


def _answer(path: str, frame: int) -> bytes:
    from pydicom.pixels.utils import iter_pixels

    try:
        facts = Path(path).stat()
        pixels = next(iter_pixels(_dataset(path, facts.st_mtime_ns, facts.st_size), indices=[frame]))
        answer = io.BytesIO()
        np.save(answer, pixels, allow_pickle=False)
        return answer.getvalue()
    except Exception:  # whatever it is, the reader says which file it is about
        return b""


@lru_cache(maxsize=1)
def _dataset(path: str, *_: int) -> Dataset:
    from anomaly_lab.data.readers.dicom_header import whole

    return whole(Path(path))


def _ask(request: dict[str, object]) -> bytes:
    """Send a request to this process's decoder, which is started if need be, and return the answer.

    Raises:
        OSError: it ended before it had answered.
    """
    child = _children.get(os.getpid())
    if child is None or child.poll() is not None:
        command = [sys.executable, "-c", _SERVE, *sys.path]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the training, which may still want pixels before it ends
        )
        _children[os.getpid()] = child
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()
    length = child.stdout.read(_LENGTH)
    answer = child.stdout.read(int.from_bytes(length, "little"))
    if len(length) < _LENGTH or len(answer) < int.from_bytes(length, "little"):
        raise BrokenPipeError
    return answer


def _end() -> None:
    """Forget a decoder that ended."""
    child = _children.pop(os.getpid(), None)
    if child is not None:
        child.kill()
        child.communicate()
