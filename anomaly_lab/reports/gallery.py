"""Read the pictures that a run stored of its cases, samples/gallery.npz and samples/missed.npz."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.types import UserError

FIXED_CASES = 5  # test cases of each label that every run keeps: the first by id, whatever their scores
MAX_BYTES = 2**32  # of all arrays in memory
MISSED = "missed.npz"  # in samples/: small pictures of all missed cases, in the form of the gallery
Arrays = dict[str, NDArray[Any]]


def read_gallery(run: Path, name: str = "gallery.npz") -> Arrays:
    """Read the stored pictures of a run; empty where there are none.

    Args:
        run: the run folder.
        name: of the file in samples/.

    Returns:
        id and kind [n], text; image [n, C, *S] in [-1, 1]; and those of anomaly_map [n, 1, *S], reconstruction
        [n, C, *S] and mask [n, 1, *S] that the run has.

    Raises:
        UserError: the file is damaged, or would need more than MAX_BYTES of memory.

    Examples:
        >>> read_gallery(Path("no such run"))
        {}
    """
    path = run / "samples" / name
    if not path.is_file():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        _check(arrays)
    except Exception as error:  # whatever a damaged or a hostile file can lead to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): write it again: make evaluate RUN={run}") from error
    return arrays


def _check(arrays: Arrays) -> None:
    """Raise ValueError unless every array has the type and the size that suit the others."""
    if missing := [name for name in ("id", "kind", "image") if name not in arrays]:
        raise ValueError(f"it lacks {missing[0]}")
    image = arrays["image"]
    for name in ("image", "anomaly_map", "reconstruction", "mask", "id", "kind"):
        values = arrays.get(name, image)
        text = name in ("id", "kind")
        alike = len(values.shape) == (1 if text else max(3, image.ndim)) and len(values) == len(image) > 0
        if (
            values.dtype.kind not in ("U" if text else "fiub")
            or not alike
            or (values.shape[2:] != image.shape[2:] and not text)
        ):
            raise ValueError(f"{name} is {values.dtype} {list(values.shape)}, which does not suit the rest")
