"""The fake pool: what a generator drew over its whole training, on disk, readable while it fills and afterwards.

A folder with images.npy (uint8 [N, C, *S]) and iterations.npy (int64 [N], how many generator iterations had been done
when the image was drawn, 0 where none is yet). Both have their final shape from the start and are sparse until filled.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from anomaly_lab.types import UserError

IMAGES, ITERATIONS = "images.npy", "iterations.npy"
FOLDER = "fakepool"  # in a run folder
PHASE = "gan"  # the phase that fills it


class Pool:
    """The filled beginning of a fake pool, memory-mapped; an image's id is its place.

    Attributes:
        images: uint8 [N, C, *S].
        iterations: int64 [N], ascending.

    Raises:
        UserError: there is none in `folder`, or it is empty.
    """

    def __init__(self, folder: Path) -> None:
        try:
            images = np.load(folder / IMAGES, mmap_mode="r")
            iterations = np.load(folder / ITERATIONS)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no fake pool can be read there ({error}); train a generator first") from error
        filled = len(iterations) if iterations.all() else int(np.argmin(iterations != 0))
        if not filled:
            raise UserError(f"{folder}: the fake pool is empty; train a generator first")
        self.images: np.ndarray = images[:filled]
        self.iterations: np.ndarray = iterations[:filled]

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, n: int) -> Tensor:
        """`n` images [n, C, *S] in [-1, 1], each any of the pool's, by torch's global generator."""
        chosen = torch.randint(len(self), (n,))
        return torch.from_numpy(self.images[chosen.numpy()]).float().div_(127.5).sub_(1)


@runtime_checkable
class DrawsFromPool(Protocol):
    """A detector that is trained against a pool; whoever trains it sets `pool` before the phase that needs it."""

    pool: Pool | None


def create(folder: Path, size: int, shape: Sequence[int]) -> None:
    """An empty pool with room for `size` images of `shape` [C, *S]; what was there is replaced."""
    folder.mkdir(exist_ok=True)
    with _disk_errors(folder):
        for name, kind, whole in ((IMAGES, np.uint8, (size, *shape)), (ITERATIONS, np.int64, (size,))):
            (folder / name).unlink(missing_ok=True)  # not written over: another run may have a link to it
            open_memmap(folder / name, "w+", kind, whole)


def write(folder: Path, places: Sequence[int], fake: Tensor, iteration: int) -> None:
    """Put images [n, C, *S] in [-1, 1] at `places`, drawn when `iteration` iterations (from 1) had been done.

    Several processes may write at once, at places of their own.
    """
    pixels = fake.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte().cpu().contiguous().numpy()
    with _disk_errors(folder):
        _put(folder / IMAGES, places, pixels)
        _put(folder / ITERATIONS, places, np.full(len(places), iteration, np.int64))  # last: only now they count


def keep_until(folder: Path, iteration: int) -> int:
    """Forget images drawn after `iteration`, which a resumed training draws again; how many are left."""
    if not (folder / ITERATIONS).exists():
        return 0
    iterations = open_memmap(folder / ITERATIONS, "r+")
    late = iterations > iteration
    if late.any():  # else untouched: a run that started from this one has a link to the file
        iterations[late] = 0
        iterations.flush()
    return int(np.count_nonzero(iterations))


def filled(folder: Path, fake: Tensor, iteration: int = 1) -> Pool:
    """A pool of these images [N, C, *S] in [-1, 1] alone."""
    create(folder, len(fake), fake.shape[1:])
    write(folder, range(len(fake)), fake, iteration)
    return Pool(folder)


def _put(path: Path, places: Sequence[int], rows: np.ndarray) -> None:
    """Write rows of a .npy file; not through a map, which kills the process when the disk is full."""
    mapped = np.load(path, mmap_mode="r")
    if mapped.shape[1:] != rows.shape[1:] or (len(places) and max(places) >= len(mapped)):
        raise ValueError(f"{path} holds {mapped.shape}, not {rows.shape} at {list(places)}")
    with path.open("r+b") as file:
        for place, row in zip(places, rows, strict=True):
            file.seek(mapped.offset + place * row.nbytes)
            file.write(row.tobytes())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; make room or choose another place"
        ) from error
