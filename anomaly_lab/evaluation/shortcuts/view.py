"""A picture as the rules on pixels look at it, with what several of them need computed once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MIDDLE = (5 / 16, 11 / 16)  # of each axis
CORNER = 1 / 4  # of height and width
GRID = 8  # pixels between the block edges of JPEG

Floats = NDArray[np.float32]


class View:
    """A picture with what several rules need of it, computed once.

    Args:
        image: [C, *S], uint8 or uint16, the last two axes height and width.

    Attributes:
        image: the same.
        white: the largest value of its type.

    Examples:
        >>> view = View(np.array([[[0, 51], [102, 255]]], np.uint8))
        >>> round(float(view.grey.mean()), 2), view.percentile(50)
        (0.4, 0.2)
    """

    def __init__(self, image: NDArray[np.unsignedinteger]) -> None:
        self.image, self.white = image, int(np.iinfo(image.dtype).max)

    @cached_property
    def levels(self) -> NDArray[np.unsignedinteger]:
        """Mean over the channels, rounded, [*S], in the picture's type."""
        rounded = self.image[0]
        if len(self.image) > 1:
            rounded = np.rint(self.image.mean(0, dtype=np.float32)).astype(self.image.dtype)
        return np.asarray(rounded)

    @cached_property
    def grey(self) -> Floats:
        """Mean over the channels in [0, 1], [*S]."""
        return np.asarray(self.levels.astype(np.float32) / np.float32(self.white))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Pixels of each value, [white + 1]."""
        return np.bincount(self.levels.ravel(), minlength=self.white + 1)

    @cached_property
    def middle(self) -> View:
        """The middle of every axis."""
        return self._part(*MIDDLE)

    @cached_property
    def half(self) -> View:
        """The middle half of every axis."""
        return self._part(1 / 4, 3 / 4)

    @cached_property
    def laplacian(self) -> Floats:
        """Sum of the second differences along all axes, without the outermost pixels; empty if an axis is too short."""
        inner = tuple(slice(1, -1) for _ in self.grey.shape)
        total = -2 * self.grey.ndim * self.grey[inner]
        for axis in range(self.grey.ndim):
            for shift in (slice(None, -2), slice(2, None)):
                total = total + self.grey[(*inner[:axis], shift, *inner[axis + 1 :])]
        return total

    @cached_property
    def _below(self) -> NDArray[np.int64]:
        return np.cumsum(self.counts)

    def percentile(self, q: float) -> float:
        """Return the grey value below or at which `q` percent of the pixels lie, in [0, 1]."""
        return int(np.searchsorted(self._below, q / 100 * self._below[-1])) / self.white

    def corner(self, top: bool, left: bool) -> float:
        """Return the mean of a corner, in [0, 1]."""
        height, width = self.grey.shape[-2:]
        tall, wide = max(1, round(CORNER * height)), max(1, round(CORNER * width))
        rows = slice(None, tall) if top else slice(height - tall, None)
        columns = slice(None, wide) if left else slice(width - wide, None)
        return float(self.grey[..., rows, columns].mean())

    def _part(self, begin: float, end: float) -> View:
        part = tuple(slice(int(begin * n), max(int(begin * n) + 1, round(end * n))) for n in self.image.shape[1:])
        return View(self.image[(slice(None), *part)])


def block_edges(values: NDArray[np.generic]) -> float | None:
    """Return how much larger steps are at every eighth row and column than elsewhere; None for small pictures.

    Traces of JPEG, which codes blocks of 8×8 pixels, outlast a conversion to PNG. Near 1 without such traces.

    Args:
        values: [..., H, W].

    Examples:
        >>> blocks = np.kron(np.arange(9).reshape(3, 3) ** 2 % 5, np.ones((8, 8)))
        >>> block_edges(blocks + np.arange(24) % 2) > 2
        True
    """
    ratios = []
    for axis in (-1, -2):
        lines = np.moveaxis(values, axis, -1).astype(np.float32)
        if lines.shape[-1] <= 2 * GRID:
            return None
        steps = np.abs(np.diff(lines)).reshape(-1, lines.shape[-1] - 1).mean(0)
        edge = np.arange(1, lines.shape[-1]) % GRID == 0
        ratios.append((steps[edge].mean() + 1e-6) / (steps[~edge].mean() + 1e-6))
    return float(np.mean(ratios))
