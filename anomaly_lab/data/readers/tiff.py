"""What the tags of a TIFF file say about its values, where the decoders at hand do not obey them by themselves.

Pillow decodes everything but colours of 16 bits, which OpenCV does. Both pass over some tags in silence; `fault` names
these files, and `is_inverted` and `white` tell what is left to do. Everything else is equal to what `tifffile` reads
(tests/data/readers/test_tiff.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from anomaly_lab.experiment.regular import regular

_BIG, _BIG_BIG_ENDIAN = b"II+\0", b"MM\0+"
_MAGIC = (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", _BIG, _BIG_BIG_ENDIAN)  # Pillow takes the third and fourth as well
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_SAMPLES, _PLANAR, _EXTRA, _FORMAT = 277, 284, 338, 339
_DEPTH, _DESCRIPTION = 32997, 270
_STACK = re.compile(r"ImageJ=.*?^images=(?!1$)\d+$", re.DOTALL | re.MULTILINE)  # behind a single directory
_WHITE_IS_ZERO, _RGB, _YCBCR = 0, 2, 6
_SIGNED, _FLOAT = 2, 3
_ASSOCIATED_ALPHA = 1
_OLD_JPEG = 6


def fault(image: TiffImageFile) -> str | None:
    """Return why the pixels would be read wrongly, or None.

    Args:
        image: as opened, not decoded.
    """
    tags = image.tag_v2
    bits, kind, extra = max(_several(tags, _BITS, 1)), max(_several(tags, _FORMAT, 1)), _several(tags, _EXTRA)
    compressed, planar = tags.get(_COMPRESSION, 1) != 1, tags.get(_PLANAR, 1) == 2 and tags.get(_SAMPLES, 1) > 1
    photometric = tags.get(_PHOTOMETRIC)
    is_stack = tags.get(_DEPTH, 1) > 1 or _STACK.match(str(tags.get(_DESCRIPTION, ""))) is not None
    faults = {
        "it does not say whether 0 is black or white (no tag PhotometricInterpretation)": photometric is None
        and tags.get(_COMPRESSION) != _OLD_JPEG,
        "its values are signed, of 8 bits": (kind, bits) == (_SIGNED, 8),
        "white is 0 in it and its values are floats": photometric == _WHITE_IS_ZERO and kind == _FLOAT,
        "it is compressed, its byte order is big-endian and its values are signed or floats": (
            compressed and image.tag_v2.prefix == b"MM" and kind != 1
        ),
        "its colours are stored one after the other (PlanarConfiguration 2) with 16 bits": planar and bits > 8,
        "its grey and alpha are stored one after the other (PlanarConfiguration 2)": (
            planar and photometric not in (_RGB, _YCBCR)
        ),
        "its colours, of 16 bits, are multiplied by its alpha (ExtraSamples 1)": bits > 8
        and _ASSOCIATED_ALPHA in extra,
        "it holds CMYK colours of 16 bits": image.mode == "CMYK" and bits > 8,
        "it is a stack of several slices": is_stack,
    }
    return next((text for text, holds in faults.items() if holds), None)


def is_inverted(image: TiffImageFile) -> bool:
    """Return whether 0 is white and Pillow leaves it so, which it does with more than 8 bits."""
    deep = max(_several(image.tag_v2, _BITS, 1)) > 8
    return deep and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def white(image: TiffImageFile) -> int:
    """Return the largest value that grey of so many bits can have, at most 65535."""
    return int(2 ** min(16, max(_several(image.tag_v2, _BITS, 1))) - 1)


def kind(path: Path) -> str:
    """Describe, for an error message, a TIFF file that cannot be opened; empty for other files.

    Examples:
        >>> kind(Path(__file__))
        ''
    """
    try:
        with regular(path).open("rb") as file:
            head = file.read(16)
            if not head.startswith(_MAGIC):
                return ""
            if head.startswith(_BIG_BIG_ENDIAN):
                return "it is a BigTIFF file in big-endian byte order, which is not supported"
            tags = ImageFileDirectory_v2(head if head.startswith(_BIG) else head[:8])
            file.seek(tags.next)
            tags.load(file)
        if _WIDTH not in tags or _HEIGHT not in tags:
            return "it is a TIFF file without width and height"
        names = {"photometric interpretation": _PHOTOMETRIC, "samples": _SAMPLES, "bits": _BITS, "format": _FORMAT}
        names |= {"extra samples": _EXTRA, "planar configuration": _PLANAR, "compression": _COMPRESSION}
        facts = (f"{name} {'/'.join(map(str, _several(tags, tag)))}" for name, tag in names.items() if tag in tags)
        return f"TIFF files of this kind are not supported ({', '.join(facts)})"
    except Exception:  # a broken file breaks the parser in any way
        return "it is a damaged TIFF file"


def _several(tags: ImageFileDirectory_v2, tag: int, default: int | None = None) -> tuple[Any, ...]:
    """Values of a tag that may have one or many."""
    value = tags.get(tag, () if default is None else (default,))
    return tuple(value) if isinstance(value, tuple | list) else (value,)
