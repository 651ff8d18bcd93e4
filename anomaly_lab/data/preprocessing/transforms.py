"""Preprocessing: bring a scan to the grid and intensity range that patches are cut from.

Pictures are padded or stretched to a size; volumes are oriented, resampled and windowed or z-scored. All values end in
[0, 1]; values outside the range are clipped, and their fraction is recorded. The store and newly scored files share
this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np

from anomaly_lab.data.readers import geometry, pictures
from anomaly_lab.data.readers.scan import MAX_VOXELS, Scan, Tolerance
from anomaly_lab.types import Range, UserError, refuse_out_of_range

if TYPE_CHECKING:  # torch is imported where it is needed: an export is scored without it
    from torch import Tensor

_VALUES = range(1, 257)  # how many values of a mask can be named
VERSION = 4  # version of the steps below; a store made with another version is not reused


class Prepared(NamedTuple):
    """A preprocessed scan, from which `PatchSampling` selects windows.

    Attributes:
        pixels: float32 [C, *S] in [0, 1].
        mask: bool [1, *S] or None.
        foreground: bool [1, *S], True inside the imaged object; None if all pixels count as foreground.
        affine: [4, 4], maps voxels of this grid to mm; None for a picture.
        clipped: fraction of the foreground values that were outside [0, 1] and were clipped.
    """

    pixels: np.ndarray
    mask: np.ndarray | None
    foreground: np.ndarray | None
    affine: np.ndarray | None
    clipped: float


@dataclass(frozen=True)
class Volume:
    """How volumes are brought to a common space and intensity range.

    At most one of window, zscore and percentiles may be set; the default is percentiles (0.5, 99.5).

    Attributes:
        axcodes: order and direction of the axes in nibabel's letters; IPL shows every plane upright.
        spacing: edge lengths of a voxel in mm, in the order of `axcodes`; None keeps those of the scan.
        window: centre and width in the units of the scan (HU for CT), or "scan" for the window in its header.
        zscore: half-width of the intensity range: this many standard deviations of the foreground around its mean.
        percentiles: percentiles of the foreground that are mapped to 0 and 1.
        foreground_above: voxels above this value, in the units of the scan, are foreground; None: above the lower end
            of the window or, without a window, different from 0.
        nan: "error" rejects a volume with NaN voxels; "background" makes them black and never foreground.
        max_voxels: a volume whose header claims more voxels is rejected before memory is allocated.

    Examples:
        >>> scan = Scan(np.arange(8).reshape(1, 2, 2, 2), affine=np.eye(4))
        >>> prepared = Volume(axcodes="RAS", window=(3.0, 4.0))(scan)  # 1 is mapped to 0 and 5 to 1
        >>> prepared.pixels.ravel().tolist(), prepared.clipped  # 6 and 7 of the foreground 2, …, 7 are clipped
        ([0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0], 0.3333333333333333)
    """

    axcodes: str = "IPL"
    spacing: Annotated[tuple[float, float, float], Range("(0, 1000]")] | None = None
    window: tuple[float, float] | Literal["scan"] | None = None
    zscore: Annotated[float, Range("(0, 100]")] | None = None
    percentiles: Annotated[tuple[float, float], Range("[0, 100]")] | None = None
    foreground_above: Annotated[float, Range("(-inf, inf)")] | None = None
    # pictures that are read lazily are known by the repr of this, and they have neither
    nan: Literal["error", "background"] = field(default="error", repr=False)
    max_voxels: Annotated[int, Range("[1, 1000000000000]")] = field(default=MAX_VOXELS, repr=False)

    def __post_init__(self) -> None:
        """Validate the settings and their combination."""
        refuse_out_of_range(type(self), vars(self))
        if not geometry.are_axcodes(self.axcodes):
            raise ValueError(
                f"axcodes={self.axcodes}: takes one each of L or R, P or A, I or S, as in {geometry.WORKING}"
            )
        if sum(rule is not None for rule in (self.window, self.zscore, self.percentiles)) > 1:
            raise ValueError("window, zscore and percentiles exclude each other; give one of them")
        if self.window not in (None, "scan"):
            two = isinstance(self.window, tuple) and Range("(-inf, inf)", counts=(2,)).admits(self.window)
            if not two or float(self.window[1]) <= 0:
                raise ValueError(f"window={self.window}: takes [centre, width] with a width above 0, or scan")
        if self.percentiles is not None and self.percentiles[0] >= self.percentiles[1]:
            raise ValueError(f"percentiles={self.percentiles}: the first must be below the second")

    @property
    def tolerance(self) -> Tolerance:
        """What readers are to let pass."""
        return Tolerance(self.nan, self.max_voxels)

    def __call__(self, scan: Scan) -> Prepared:
        """Orient and resample a volume and bring it to [0, 1]."""
        assert scan.affine is not None
        pixels, affine = geometry.oriented(scan.pixels, scan.affine, self.axcodes)
        self._refuse_to_grow(pixels, affine)
        mask, inside = (self._same_grid(which, scan, affine) for which in (scan.mask, scan.foreground))
        if self.spacing is not None:
            pixels, affine = geometry.resampled(pixels.astype(np.float32), affine, self.spacing, "bilinear")
        foreground = self._foreground(pixels, scan)
        if inside is not None:
            foreground &= inside
        low, high = self._range(pixels, foreground, scan)
        values = (pixels.astype(np.float32) - np.float32(low)) / np.float32(high - low)
        if inside is not None:
            values[~inside] = 0
        outside = int(np.count_nonzero(((values < 0) | (values > 1)) & foreground))
        np.clip(values, 0, 1, out=values)
        return Prepared(values, mask, foreground, affine, outside / max(1, int(np.count_nonzero(foreground))))

    def _same_grid(self, which: np.ndarray | None, scan: Scan, affine: np.ndarray) -> np.ndarray | None:
        """Orient and resample voxels that are marked, bool [1, *S], as the scan's pixels are; `affine` is oriented."""
        if which is None or scan.affine is None:
            return None
        which = geometry.oriented(which, scan.affine, self.axcodes)[0]
        if self.spacing is None:
            return which
        return np.asarray(geometry.resampled(which.astype(np.float32), affine, self.spacing, "nearest")[0] > 0.5)

    def _refuse_to_grow(self, pixels: np.ndarray, affine: np.ndarray) -> None:
        """Raise UserError where the new spacing makes too many voxels: a header may claim slices a mile apart."""
        if self.spacing is None:
            return
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        voxels = float(np.prod(np.array(pixels.shape[1:]) * spacing / np.array(self.spacing)))
        if voxels > max(self.max_voxels, pixels.size):
            edges = " × ".join(f"{edge:.4g}" for edge in spacing)
            raise UserError(
                f"its voxels of {edges} mm become {voxels:.3g} under data.volume.spacing={self.spacing}, above "
                f"data.volume.max_voxels={self.max_voxels}; check the spacing or raise the limit"
            )

    def _foreground(self, pixels: np.ndarray, scan: Scan) -> np.ndarray:
        if self.foreground_above is not None:
            return np.asarray(pixels > self.foreground_above)
        if self.window is None:
            return np.asarray(pixels != 0)
        centre, width = self._window(scan)
        return np.asarray(pixels > centre - width / 2)

    def _range(self, pixels: np.ndarray, foreground: np.ndarray, scan: Scan) -> tuple[float, float]:
        """Return the values that are mapped to 0 and to 1."""
        if self.window is not None:
            centre, width = self._window(scan)
            return centre - width / 2, centre + width / 2
        values = pixels[foreground]
        if values.size == 0 or values.min() == values.max():
            raise UserError("its foreground is empty or constant")
        if self.zscore is not None:
            mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
            return mean - self.zscore * deviation, mean + self.zscore * deviation
        low, high = map(float, np.percentile(values, self.percentiles or (0.5, 99.5)))
        return (low, high) if low < high else (float(values.min()), float(values.max()))

    def _window(self, scan: Scan) -> tuple[float, float]:
        if isinstance(self.window, tuple):
            return float(self.window[0]), float(self.window[1])
        if scan.window is None:
            raise UserError(
                "its header has no window, which data.volume.window=scan requires; "
                "set data.volume.window=[centre,width]"
            )
        return scan.window


@dataclass(frozen=True)
class Picture(pictures.Rules):
    """How pictures and their masks are read and brought to a common size.

    Attributes:
        range: the value that is white in files that can hold larger ones, such as 4095 for 12 bits stored in 16, or 255
            for floats; None means the largest value of the file's type, 1 for floats.
        mask_values: values of a mask, or numbers of the entries of its palette, that mean lesion; None means whatever
            is not black.
        max_pixels: maximum number of pixels; larger pictures are refused before they are decoded.
        size: height and width to which a picture is resized before patches are cut; None keeps its size if the data
            module has a `cut` and otherwise means `patch_size`.
        fit: "pad" preserves the aspect ratio by adding black borders, "stretch" does not preserve it.

    Examples:
        >>> Picture(size=(256, 256), fit="stretch")
        Picture(range=None, mask_values=None, max_pixels=178956970, size=(256, 256), fit='stretch')
    """

    range: Annotated[float, Range("(0, inf)")] | None = None
    mask_values: Annotated[tuple[int, ...], Range("[0, 65535]", counts=_VALUES)] | None = None
    max_pixels: Annotated[int, Range("[1, 100000000000]")] = pictures.MAX_PIXELS
    size: Annotated[tuple[int, int], Range("[1, 16384]")] | None = None
    fit: Literal["pad", "stretch"] = "pad"

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))


@dataclass(frozen=True)
class Preprocessing:
    """The steps applied to a scan before patches are cut from it.

    Attributes:
        size: height and width to which a picture is resized, in pixels; None keeps its size.
        fit: "pad" preserves the aspect ratio by adding black borders, "stretch" does not preserve it.
        volume: the steps for volumes.

    Examples:
        >>> wide = Scan(np.full((1, 2, 4), 255, np.uint8))
        >>> Preprocessing(size=(4, 4))(wide).pixels[0].tolist()  # one black row above and one below
        [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """

    size: tuple[int, ...] | None
    fit: Literal["pad", "stretch"] = "pad"
    volume: Volume = Volume()

    def __call__(self, scan: Scan) -> Prepared:
        """Bring a scan to the common grid and to [0, 1]."""
        if scan.affine is not None:
            return self.volume(scan)
        pixels = scan.pixels / np.float32(np.iinfo(scan.pixels.dtype).max)
        size = scan.shape if self.size is None else self.size
        if len(size) != len(scan.shape):
            raise UserError(f"data.patch_size={list(size)} has three numbers, but the scans are pictures; give two")
        mask, foreground = (
            None if values is None else self._fit(values.astype(np.float32), size, "nearest-exact") > 0.5
            for values in (scan.mask, scan.foreground)
        )
        return Prepared(self._fit(pixels, size, "bilinear").clip(0, 1), mask, foreground, None, 0.0)

    def undo(self, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Map values of a picture, such as an anomaly map, from the detector's grid back to the original grid.

        Args:
            values: float32 [h, w], on the grid of `size`.
            shape: height and width of the original picture.

        Returns:
            float32 of that shape; the padding is removed.

        Examples:
            >>> padded = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], np.float32)
            >>> Preprocessing(size=(4, 4)).undo(padded, (2, 4)).tolist()
            [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
        """
        if values.shape == tuple(shape):
            return values
        (top, left), (bottom, right) = self._padding(shape, values.shape)
        padded = (shape[0] + top + bottom, shape[1] + left + right)
        resized = self._resized(np.ascontiguousarray(values, np.float32)[None], padded, "bilinear", antialias=False)
        return np.asarray(resized[0, top : top + shape[0], left : left + shape[1]])

    def _padding(self, shape: Sequence[int], size: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the rows and columns to add before and after a picture so that it has the aspect ratio of `size`."""
        if self.fit != "pad" or tuple(shape) == tuple(size):
            return (0, 0), (0, 0)
        longest, target = max(zip(shape, size, strict=True), key=lambda pair: pair[0] / pair[1])
        rows, columns = (-(-longest * t // target) - side for side, t in zip(shape, size, strict=True))  # rounded up
        return (rows // 2, columns // 2), (rows - rows // 2, columns - columns // 2)

    def _fit(self, pixels: np.ndarray, size: Sequence[int], mode: str) -> np.ndarray:
        """Pad [C, H, W] if `fit` is "pad" and resize it, bilinear with antialiasing or by nearest neighbours."""
        if pixels.shape[1:] == tuple(size):
            return pixels
        (top, left), (bottom, right) = self._padding(pixels.shape[1:], size)
        if top or left or bottom or right:
            pixels = np.pad(pixels, ((0, 0), (top, bottom), (left, right)))
        if pixels.shape[1:] == tuple(size):
            return pixels
        return self._resized(pixels, size, mode, antialias=mode == "bilinear")

    def _resized(self, pixels: np.ndarray, size: Sequence[int], mode: str, antialias: bool) -> np.ndarray:
        """Resize [C, H, W]; `runtime` does the same without torch."""
        import torch
        from torch.nn import functional as F

        image = torch.from_numpy(np.ascontiguousarray(pixels))[None]
        return np.asarray(F.interpolate(image, tuple(size), mode=mode, antialias=antialias)[0])


AT_ONCE = 2**20  # values that are quantised at once


def quantise(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Scale pixels [C, *S] in [0, 1] to the full range of an unsigned integer type and round them.

    Examples:
        >>> quantise(np.array([[[0.0, 0.5, 1.0]]], np.float32), np.dtype(np.uint8)).tolist()
        [[[0, 128, 255]]]
    """
    top = np.float64(np.iinfo(dtype).max)
    if pixels.size <= AT_ONCE:
        return np.rint(pixels * top).astype(dtype)
    quantised = np.empty(pixels.shape, dtype)
    for i in range(
        pixels.shape[1]
    ):  # slice by slice: a volume in float64 takes at least four times the result's memory
        quantised[:, i] = np.rint(pixels[:, i] * top)
    return quantised


def to_float(pixels: np.ndarray) -> Tensor:
    """Scale stored pixels, uint8 or uint16, to float32 in [-1, 1]; the result is contiguous.

    Examples:
        >>> to_float(np.array([0, 255], np.uint8)), to_float(np.array([0, 65535], np.uint16))
        (tensor([-1.,  1.]), tensor([-1.,  1.]))
    """
    import torch

    return torch.from_numpy(centred(pixels))


def centred(pixels: np.ndarray) -> np.ndarray:
    """Scale stored pixels, uint8 or uint16, to float32 in [-1, 1], as `to_float` does, to an array.

    Examples:
        >>> centred(np.array([0, 255], np.uint8)).tolist()
        [-1.0, 1.0]
    """
    values = pixels.astype(np.float32, order="C")  # numpy is faster here than torch with its threads
    np.divide(values, np.float32(np.iinfo(pixels.dtype).max / 2), out=values)
    return np.subtract(values, np.float32(1), out=values)
