"""MNIST: some of the ten digits are anomalous, the others are normal; and what all sets made of its digits share.

Layout: `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each gzipped or not. Protocol: normal digits of the 60 000
training ones train, all 10 000 test digits are judged. EGBAD's authors (Zenati et al. 2018) deal out all digits anew
instead; Multi-KD's take one digit for normal and nine for anomalous: `anomalous=[0, 1, 2, 3, 4, 5, 6, 7, 9]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.idx import IMAGES, LABELS, find_idx, read_idx
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.twins.mnist import write_twin
from anomaly_lab.types import Case, Range, UserError


class _Digits(PatchDataModule):
    """Handwritten digits in MNIST's files, with black around each."""

    where_to_get = (
        "get the four MNIST files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
        "t10k-labels-idx1-ubyte, gzipped or not) and lay them side by side"
    )

    def __init__(self, *, pad: Annotated[int, Range("[0, 1000]")] = 2, **arguments: Any) -> None:
        """Check the option of all sets of digits; the rest is the base class's.

        Args:
            pad: pixels of black around the digit; 2 makes 28×28 the 32×32 of the papers without resampling.
            **arguments: of PatchDataModule.
        """
        super().__init__(**arguments)
        if pad < 0:
            raise UserError("data: pad starts at 0")
        self.pad = pad
        self._files: dict[Path, np.ndarray] = {}

    def digits(self, root: Path, part: str) -> tuple[Path, np.ndarray]:
        """The images' file of `train` or `t10k` and which digit each of them is; there must be as many of both."""
        images, labels = (find_idx(root, f"{part}-{what}-ubyte") for what in ("images-idx3", "labels-idx1"))
        self._files.pop(images, None)  # the data set is listed anew
        count, which = len(self.decoded(images)), read_idx(labels, LABELS)
        if len(which) != count:
            raise UserError(f"{labels}: {len(which)} labels for the {count} images of {images}; get both files again")
        return images, which

    def decoded(self, path: Path) -> np.ndarray:
        """All digits of a file, uint8 [N, H, W]; it is decoded once."""
        if path not in self._files:
            self._files[path] = read_idx(path, IMAGES)
        return self._files[path]

    def digit(self, case: Case) -> np.ndarray:
        """One digit, uint8 [H, W]."""
        digit: np.ndarray = self.decoded(case.image)[case.frame]
        if digit.min() == digit.max():
            fault = f"image {case.frame}: every pixel is {digit.flat[0]}, there is nothing to see in it"
            raise UserError(f"{case.image}, {fault}; replace it, or leave such files out with data.store.on_bad=skip")
        return digit

    def scan(self, digit: np.ndarray, mask: np.ndarray | None = None) -> Scan:
        """A digit [H, W] in the middle of black, with its mask."""
        return Scan(_framed(digit, self.pad, self.in_channels), None if mask is None else _framed(mask, self.pad, 1))

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic digits of the same layout."""
        write_twin(root, seed, size)


class MNIST(_Digits):
    """Handwritten digits, some of the ten anomalous."""

    name = "mnist"
    official: ClassVar[dict[str, int]] = {"images": 70_000}

    def __init__(
        self, *, anomalous: Annotated[Sequence[int], Range("[0, 9]", counts=range(1, 10))] = (8,), **arguments: Any
    ) -> None:
        """Check which digits are anomalous; the rest is the base class's.

        Args:
            anomalous: digits that are anomalous, 0 to 9; at least one is left for normal.
            **arguments: of _Digits.
        """
        super().__init__(**arguments)
        self.anomalous = frozenset(anomalous)
        if not self.anomalous or not self.anomalous < set(range(10)):
            raise UserError(f"data.anomalous={sorted(anomalous)}: one to nine of the digits 0 to 9")

    def cases(self, root: Path) -> list[Case]:
        """List training and test digits with their labels, in the order of their files."""
        return [*self._part(root, "train", "train"), *self._part(root, "t10k", "test")]

    def _part(self, root: Path, part: str, split: str) -> list[Case]:
        path, which = self.digits(root, part)
        found = []
        for number, digit in enumerate(which.tolist()):
            identity, label = f"{part}-{number:05d}", int(digit in self.anomalous)
            kind = f"digit {digit}" if label else ""
            found.append(Case(identity, identity, path, label, class_name=kind, split=split, frame=number))
        return found

    def read(self, case: Case) -> Scan:
        """Cut one digit from its file."""
        return self.scan(self.digit(case))

    def protocol(self) -> dict[str, Any]:
        """What the labels and pixels depend on besides the files."""
        return {"anomalous": sorted(self.anomalous), "pad": self.pad}


def _framed(pixels: np.ndarray, pad: int, channels: int) -> np.ndarray:
    """[H, W] as [channels, H + 2 pad, W + 2 pad], zeros around; an eighth of the time of np.pad."""
    height, width = pixels.shape
    framed = np.zeros((channels, height + 2 * pad, width + 2 * pad), pixels.dtype)
    framed[:, pad : pad + height, pad : pad + width] = pixels
    return framed
