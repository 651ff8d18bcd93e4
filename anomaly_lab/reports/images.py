"""Turn arrays into pictures for a page: scans, anomaly maps overlaid on scans, outlines of known lesions."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST = 256  # pixels per side, because a report holds dozens of pictures
ENLARGED = 512  # pixels per side of pictures that the reader may enlarge
EXACT = 128  # up to so many pixels per side such a picture is stored pixel for pixel
QUALITY = 82  # of JPEG, where not

# Nine control points of the colour map "inferno" (S. van der Walt and N. Smith, CC0). It is perceptually uniform, also
# for colour-blind readers and when printed in grey.
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
ABOVE, BELOW = np.array((1.0, 0.6, 0.2)), np.array((0.38, 0.71, 1.0))  # of signed differences; told apart by all eyes


def heat(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Map values in [0, 1], [H, W], to colours in [0, 1], [H, W, 3].

    Examples:
        >>> (heat(np.array([[0.0, 1.0]])) * 255).round().astype(int).tolist()  # from black to pale yellow
        [[[0, 0, 4], [252, 255, 164]]]
    """
    at = np.linspace(0, 1, len(INFERNO))
    return np.stack([np.interp(values, at, INFERNO[:, channel]) for channel in range(3)], axis=-1)


def shades(image: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Convert an image in [-1, 1], [C, H, W], to colours in [0, 1], [H, W, 3]: RGB, or the first channel in grey.

    Examples:
        >>> shades(np.array([[[-1.0, 0.0, 1.0]]])).tolist()  # black, grey, white
        [[[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]]
    """
    channels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    colours: NDArray[np.float64] = (np.nan_to_num(channels).astype(np.float64).transpose(1, 2, 0) + 1) / 2
    return np.clip(colours, 0, 1)


def overlay(
    image: NDArray[np.floating[Any]], anomaly_map: NDArray[np.floating[Any]], brightest: float
) -> NDArray[np.float64]:
    """Overlay an anomaly map on its image: the more anomalous, the brighter and the more opaque.

    Args:
        image: the scored image, [C, H, W] in [-1, 1].
        anomaly_map: [H, W], non-negative.
        brightest: map value that gets the brightest colour; use the same for all pictures that are to be compared.

    Returns:
        Colours in [0, 1], [H, W, 3].

    Examples:
        >>> picture = overlay(np.zeros((1, 1, 2)), np.array([[0.0, 4.0]]), brightest=4.0)
        >>> picture.round(1).tolist()  # the grey image where the map is 0, pale yellow at the maximum
        [[[0.5, 0.5, 0.5], [0.9, 0.9, 0.6]]]
    """
    value = np.clip(np.nan_to_num(anomaly_map) / max(brightest, 1e-12), 0, 1)
    opacity = 0.85 * value[..., None]
    # in grey, so that the scan's own colours are not mistaken for the map's
    grey = shades(image).mean(axis=-1, keepdims=True)
    blend: NDArray[np.float64] = (1 - opacity) * grey + opacity * heat(value)
    return blend


def signed(difference: NDArray[np.floating[Any]], largest: float) -> NDArray[np.float64]:
    """Map differences [H, W] to colours in [0, 1], [H, W, 3]: black for 0, orange above, blue below.

    Args:
        difference: of any sign.
        largest: its absolute value that gets the brightest colour.

    Examples:
        >>> signed(np.array([[-1.0, 0.0, 0.5]]), largest=1.0).round(2).tolist()
        [[[0.38, 0.71, 1.0], [0.0, 0.0, 0.0], [0.5, 0.3, 0.1]]]
    """
    value = np.clip(np.nan_to_num(difference) / max(largest, 1e-12), -1, 1)[..., None]
    colours: NDArray[np.float64] = np.abs(value) * np.where(value > 0, ABOVE, BELOW)
    return colours


def outline(mask: NDArray[np.bool_]) -> str:
    """Return an SVG path along the pixel edges of a mask [H, W], in units of pixels.

    Examples:
        >>> outline(np.array([[True]]))  # the four edges of one pixel
        'M0 0h1M0 1h1M0 0v1M1 0v1'
    """
    padded = np.pad(mask.astype(np.int8), 1)
    across = np.argwhere(np.diff(padded, axis=0)[:, 1:-1])
    down = np.argwhere(np.diff(padded, axis=1)[1:-1])
    return "".join([f"M{x} {y}h1" for y, x in across] + [f"M{x} {y}v1" for y, x in down])


def data_uri(colours: NDArray[np.floating[Any]], largest: int = LARGEST) -> str:
    """Encode colours in [0, 1], [H, W, 3], as a PNG data URI, reduced to at most `largest` pixels per side.

    Examples:
        >>> data_uri(np.zeros((2, 2, 3)))[:22]
        'data:image/png;base64,'
    """
    picture = Image.fromarray((colours * 255).round().astype(np.uint8))
    picture.thumbnail((largest, largest))
    return png_uri(_png(picture))


def picture_uri(colours: NDArray[np.floating[Any]], largest: int = ENLARGED, exact: int = EXACT) -> str:
    """Encode colours in [0, 1], [H, W, 3], for a page with many pictures: small ones as PNG, larger ones as JPEG.

    Args:
        colours: the picture.
        largest: pixels per side; a larger picture is reduced.
        exact: pixels per side up to which a picture is small.

    Examples:
        >>> picture_uri(np.zeros((64, 64, 3)))[:15], picture_uri(np.zeros((600, 600, 3)))[:16]
        ('data:image/png;', 'data:image/jpeg;')
    """
    if min(max(colours.shape[:2]), largest) <= exact:
        return data_uri(colours, largest)
    picture, buffer = Image.fromarray((colours * 255).round().astype(np.uint8)), io.BytesIO()
    picture.thumbnail((largest, largest))
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def png_uri(png: bytes) -> str:
    """Encode the bytes of a PNG file as a data URI.

    Examples:
        >>> png_uri(b"PNG")
        'data:image/png;base64,UE5H'
    """
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
