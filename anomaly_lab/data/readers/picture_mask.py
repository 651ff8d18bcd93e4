"""What is the lesion in a mask that is a picture: grey, colour, palette or alpha, whatever a drawing program saved."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

_HALF = 128  # of the range of 8 bits, where a lossy mask is cut into black and white
_SAME = 32  # channels of a lossy grey may differ by so much
_ADVICE = "make the lesion white on black, or name its values: data.picture.mask_values"


def lesion(
    values: np.ndarray,
    palette: np.ndarray | None = None,
    mask_values: Collection[int] | None = None,
    lossy: bool = False,
) -> np.ndarray:
    """Tell the lesion from the rest.

    With `mask_values`, it is where grey, or the number of the palette's entry, is one of them. Without, it is

    - in grey, colour and palette: whatever is not black, if there is any black;
    - in a lossy format: whatever is brighter than half, because compression blurs black;
    - where an alpha channel differs: what is drawn and not transparent. If everything is of one colour, alpha alone
      tells.

    Args:
        values: grey [H, W], grey and alpha [H, W, 2], colour [H, W, 3] or colour and alpha [H, W, 4]; of a palette its
            colours.
        palette: number of each pixel's entry in the palette, [H, W]; None without a palette.
        mask_values: see above.
        lossy: whether the format changes values, as JPEG does.

    Returns:
        bool [H, W].

    Raises:
        ValueError: the values do not tell what the lesion is; its text says why and what to do.

    Examples:
        >>> lesion(np.array([[[0, 0, 0], [0, 0, 4]]]))
        array([[False,  True]])
        >>> lesion(np.array([[0, 1, 2]]), mask_values=[2])
        array([[False, False,  True]])
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("the mask holds NaN or infinite pixels")
    if values.min() < 0:
        raise ValueError(f"the mask holds {values.min():g}; its values must not be negative")
    has_alpha = values.ndim == 3 and values.shape[2] in (2, 4)
    colours = values[..., None] if values.ndim == 2 else values[..., :-1] if has_alpha else values
    if mask_values is not None:
        return np.isin(_numbers(colours, palette, lossy), list(mask_values))
    drawn = _bright(colours) if lossy else (colours > 0).any(2)
    shown = values[..., -1] > 0 if has_alpha else np.ones(drawn.shape, bool)
    uniform = bool((colours == colours[0, 0]).all())
    if shown.all() or not shown.any():  # the alpha channel tells nothing
        if palette is not None and uniform and len(np.unique(palette)) > 1:
            raise ValueError(f"all entries of the mask's palette have one colour; {_ADVICE}")
        if drawn.all() and not uniform and not lossy:
            raise ValueError(f"no pixel of the mask is black, so nothing tells the lesion from the rest; {_ADVICE}")
        return np.asarray(drawn)
    if uniform:
        return np.asarray(shown)
    both = drawn & shown
    if not (np.array_equal(both, drawn) or np.array_equal(both, shown)):
        raise ValueError(f"the mask has black and other colours both under and outside its transparent part; {_ADVICE}")
    return both


def _numbers(colours: np.ndarray, palette: np.ndarray | None, lossy: bool) -> np.ndarray:
    """Number of each pixel, [H, W], that `mask_values` speak of."""
    if lossy:
        raise ValueError("data.picture.mask_values needs masks of a lossless format; save it as PNG")
    if palette is not None:
        return palette
    if (colours != colours[..., :1]).any():
        raise ValueError("data.picture.mask_values needs masks in grey or with a palette, this one is in colour")
    return np.asarray(colours[..., 0])


def _bright(colours: np.ndarray) -> np.ndarray:
    """What is white in a mask that a lossy format has blurred, [H, W]."""
    brightest = colours.max(2)
    if (brightest - colours.min(2).astype(np.int64) > _SAME).any():
        raise ValueError("the mask is in colour and its format is lossy; save it as PNG")
    if 0 < brightest.max() < _HALF:
        raise ValueError(f"the mask's format is lossy and its values end at {brightest.max()}; save it as PNG")
    return np.asarray(brightest >= _HALF)
