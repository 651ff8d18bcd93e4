"""Arrays as pictures for a page: scans, anomaly maps laid over them, outlines of known lesions."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST = 256  # pixels a side; a report holds dozens of pictures

# Nine control points of the colour map "inferno" (S. van der Walt and N. Smith, CC0): even steps look even,
# also to the colour-blind and in grey print.
INFERNO = (
    np.array(
        [
            (0, 0, 4),
            (31, 12, 72),
            (85, 15, 109),
            (136, 34, 106),
            (186, 54, 85),
            (227, 89, 51),
            (249, 140, 10),
            (249, 201, 50),
            (252, 255, 164),
        ]
    )
    / 255
)


def heat(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Colours in [0, 1], [H, W, 3], of values in [0, 1], [H, W]."""
    at = np.linspace(0, 1, len(INFERNO))
    return np.stack([np.interp(values, at, INFERNO[:, channel]) for channel in range(3)], axis=-1)


def shades(image: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Colours in [0, 1], [H, W, 3], of an image in [-1, 1], [C, H, W]: RGB, or the first channel."""
    channels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    colours: NDArray[np.float64] = (np.nan_to_num(channels).astype(np.float64).transpose(1, 2, 0) + 1) / 2
    return np.clip(colours, 0, 1)


def overlay(
    image: NDArray[np.floating[Any]], anomaly_map: NDArray[np.floating[Any]], brightest: float
) -> NDArray[np.float64]:
    """The scan under its map, in colours [H, W, 3]: the more anomalous, the hotter and the less transparent.

    Args:
        image: what was judged, [C, H, W] in [-1, 1].
        anomaly_map: non-negative, [H, W].
        brightest: map value of the hottest colour, shared by all pictures that are to be compared.
    """
    value = np.clip(np.nan_to_num(anomaly_map) / max(brightest, 1e-12), 0, 1)
    opacity = 0.85 * value[..., None]
    # grey, so that colours of the scan are not taken for those of the map
    grey = shades(image).mean(axis=-1, keepdims=True)
    blend: NDArray[np.float64] = (1 - opacity) * grey + opacity * heat(value)
    return blend


def outline(mask: NDArray[np.bool_]) -> str:
    """SVG path along the pixel edges between inside and outside of a mask [H, W], in units of pixels."""
    padded = np.pad(mask.astype(np.int8), 1)
    across = np.argwhere(np.diff(padded, axis=0)[:, 1:-1])
    down = np.argwhere(np.diff(padded, axis=1)[1:-1])
    return "".join([f"M{x} {y}h1" for y, x in across] + [f"M{x} {y}v1" for y, x in down])


def data_uri(colours: NDArray[np.floating[Any]]) -> str:
    """A picture inside the page: PNG of colours in [0, 1], [H, W, 3], at most 256 pixels a side."""
    picture = Image.fromarray((colours * 255).round().astype(np.uint8))
    picture.thumbnail((LARGEST, LARGEST))
    return png_uri(_png(picture))


def png_uri(png: bytes) -> str:
    """The bytes of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
