"""An image beside its healthy counterpart, the detector's reconstruction, pixel for pixel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.reports import images
from anomaly_lab.reports.charts import Row

LARGEST = 1024  # pixels per side; larger pictures are reduced


class Pair(NamedTuple):
    """An image and its counterpart.

    Attributes:
        facts: what the page says of the case.
        image: [C, H, W] in [-1, 1].
        reconstruction: [C, H, W] in [-1, 1].
        anomaly_map: [H, W], or None.
        mask: known lesion, bool [H, W], or None.
    """

    facts: Row
    image: NDArray[np.floating[Any]]
    reconstruction: NDArray[np.floating[Any]]
    anomaly_map: NDArray[np.floating[Any]] | None = None
    mask: NDArray[np.bool_] | None = None

    @property
    def difference(self) -> NDArray[np.float64]:
        """Image less counterpart, mean over the channels, [H, W]; 1 is the range from black to white."""
        mean: NDArray[np.float64] = (images.shades(self.image) - images.shades(self.reconstruction)).mean(axis=-1)
        return mean


class Counterparts(NamedTuple):
    """What a page shows of several pairs.

    Attributes:
        largest: difference that has the brightest colour, as a share of the range from black to white.
        bar: data URI of the colour scale, from -largest to largest.
        cases: facts of each pair, size, data URIs of image, reconstruction, difference and, with a map, overlay; SVG
            path of the outline of a lesion.
    """

    largest: float
    bar: str
    cases: list[Row]


def shown(pairs: Iterable[Pair], brightest: float) -> Counterparts | None:
    """Make the pictures of pairs, with one scale of differences for all; None if there are no pairs.

    Args:
        pairs: images and their counterparts.
        brightest: map value that gets the brightest colour.

    Examples:
        >>> black, white = np.full((1, 2, 2), -1.0), np.full((1, 2, 2), 1.0)
        >>> found = shown([Pair({"id": "a"}, white, black)], brightest=1.0)
        >>> found.largest, sorted(found.cases[0])
        (1.0, ['difference', 'id', 'image', 'reconstruction', 'size'])
    """
    pairs = list(pairs)
    if not pairs:
        return None
    differences = [pair.difference for pair in pairs]
    largest = float(np.quantile(np.abs(np.concatenate([values.ravel() for values in differences])), 0.995))
    cases = []
    for pair, difference in zip(pairs, differences, strict=True):
        parts = {
            "image": images.shades(pair.image),
            "reconstruction": images.shades(pair.reconstruction),
            "difference": images.signed(difference, largest),
        }
        if pair.anomaly_map is not None:
            parts["overlay"] = images.overlay(pair.image, pair.anomaly_map, brightest)
        case: Row = pair.facts | {name: images.data_uri(colours, LARGEST) for name, colours in parts.items()}
        case["size"] = difference.shape
        if pair.mask is not None and pair.mask.any():
            case["outline"] = images.outline(pair.mask)
        cases.append(case)
    bar = images.signed(np.linspace(-1, 1, 200)[None].repeat(8, axis=0), 1.0)
    return Counterparts(largest, images.data_uri(bar), cases)
