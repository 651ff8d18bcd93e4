"""The fake pool of adGAN: images generated in all stages of a GAN training, stored on disk.

A folder with images.npy (uint8 [N, C, *S]) and iterations.npy (int64 [N]: number of generator iterations done when the
image was generated, 0 if the place is still empty). Both files have their final shape from the start, are sparse until
filled, and can be read meanwhile.
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

from anomaly_lab.devices import sent
from anomaly_lab.types import UserError

IMAGES, ITERATIONS = "images.npy", "iterations.npy"
FOLDER = "fakepool"  # name within a run folder
PHASE = "gan"  # name of the phase that fills the pool


class Pool:
    """The filled part of a fake pool, memory-mapped; the id of an image is its index.

    Args:
        folder: folder of the pool.

    Attributes:
        images: uint8 [N, C, *S].
        iterations: int64 [N], ascending.

    Raises:
        UserError: there is no pool in `folder`, or it is empty.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pool = filled(Path(folder), torch.ones(3, 1, 2, 2), iteration=100)
        ...     len(pool), pool.iterations.tolist(), pool.draw(1).flatten().tolist()
        (3, [100, 100, 100], [1.0, 1.0, 1.0, 1.0])
    """

    def __init__(self, folder: Path) -> None:
        try:
            images = _mapped(folder / IMAGES)
            iterations = np.array(_mapped(folder / ITERATIONS))
            if images.dtype != np.uint8 or iterations.dtype != np.int64 or iterations.shape != images.shape[:1]:
                raise ValueError(f"{IMAGES} and {ITERATIONS} are not those of a pool")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}: no fake pool can be read there ({error}); train the phase {PHASE} first"
            ) from error
        filled = len(iterations) if iterations.all() else int(np.argmin(iterations != 0))
        if not filled:
            raise UserError(f"{folder}: the fake pool is empty; train the phase {PHASE} first")
        self.images: np.ndarray = images[:filled]
        self.iterations: np.ndarray = iterations[:filled]

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """Return `n` images [n, C, *S] in [-1, 1], drawn uniformly with replacement by torch's global generator.

        Args:
            n: number of images.
            device: where they are wanted. The CPU's generator draws for every device, and nobody waits for the copy.
        """
        chosen = torch.randint(len(self), (n,))
        return sent(torch.from_numpy(self.images[chosen.numpy()]), device).float().div_(127.5).sub_(1)


@runtime_checkable
class DrawsFromPool(Protocol):
    """A detector that is trained against a fake pool; `pool` must be set before the phase that needs it."""

    pool: Pool | None


def create(folder: Path, size: int, shape: Sequence[int]) -> None:
    """Create an empty pool for `size` images of `shape` [C, *S]; existing files are replaced.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     create(Path(folder), size=4, shape=(1, 2, 2))
        ...     write(Path(folder), [0, 1], torch.zeros(2, 1, 2, 2), iteration=1)
        ...     len(Pool(Path(folder)))
        2
    """
    folder.mkdir(exist_ok=True)
    with _disk_errors(folder):
        for name, dtype, full_shape in ((IMAGES, np.uint8, (size, *shape)), (ITERATIONS, np.int64, (size,))):
            (folder / name).unlink(missing_ok=True)  # not overwritten, because another run may link to the file
            open_memmap(folder / name, "w+", dtype, full_shape)


def write(folder: Path, places: Sequence[int], fake: Tensor, iteration: int) -> None:
    """Store generated images in a pool, which has one writer.

    Args:
        folder: folder of the pool.
        places: indices of the images.
        fake: [n, C, *S] in [-1, 1].
        iteration: number of iterations done (from 1) when they were generated.

    Raises:
        ValueError: the images do not fit the pool.
        UserError: the disk is full, or the files cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     create(Path(folder), size=4, shape=(1, 2, 2))
        ...     write(Path(folder), [0], torch.zeros(1, 1, 2, 2), iteration=7)
        ...     Pool(Path(folder)).iterations.tolist()
        [7]
    """
    pixels = fake.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte().cpu().contiguous().numpy()
    with _disk_errors(folder):
        _put(folder / IMAGES, places, pixels)
        _put(
            folder / ITERATIONS, places, np.full(len(places), iteration, np.int64)
        )  # last: it marks the places as filled


def keep_until(folder: Path, iteration: int) -> int:
    """Drop images generated after `iteration`, which a resumed training generates again; return how many remain.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     create(Path(folder), size=2, shape=(1, 2, 2))
        ...     for place in (0, 1):
        ...         write(Path(folder), [place], torch.zeros(1, 1, 2, 2), iteration=100 * (place + 1))
        ...     keep_until(Path(folder), iteration=150)
        1
    """
    if not (folder / ITERATIONS).exists():
        return 0
    _refuse_link(folder / ITERATIONS)
    iterations = open_memmap(folder / ITERATIONS, "r+")
    late = iterations > iteration
    if late.any():  # otherwise leave the file alone: a run that started from this one may link to it
        iterations[late] = 0
        iterations.flush()
    return int(np.count_nonzero(iterations))


def filled(folder: Path, fake: Tensor, iteration: int = 1) -> Pool:
    """Create a pool that consists of these images [N, C, *S] in [-1, 1].

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     filled(Path(folder), torch.zeros(3, 1, 2, 2)).images.shape
        (3, 1, 2, 2)
    """
    create(folder, len(fake), fake.shape[1:])
    write(folder, range(len(fake)), fake, iteration)
    return Pool(folder)


def _put(path: Path, places: Sequence[int], rows: np.ndarray) -> None:
    """Write rows of a .npy file, not through a memory map, which kills the process if the disk is full."""
    _refuse_link(path)
    mapped = _mapped(path)
    if mapped.shape[1:] != rows.shape[1:] or (len(places) and max(places) >= len(mapped)):
        raise ValueError(f"{path} holds {mapped.shape}, not {rows.shape} at {list(places)}")
    with path.open("r+b") as file:
        for place, row in zip(places, rows, strict=True):
            file.seek(mapped.offset + place * row.nbytes)
            file.write(row.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _mapped(path: Path) -> np.memmap:
    """Map a .npy file; its header may claim no more than the file has, and no objects."""
    mapped: np.memmap = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _refuse_link(path: Path) -> None:
    """Refuse to write where a link leads, which may be a file outside the run folder."""
    if path.is_symlink():
        raise UserError(f"{path} is a link; replace it by the file that it leads to")


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; free some space or choose another folder"
        ) from error
