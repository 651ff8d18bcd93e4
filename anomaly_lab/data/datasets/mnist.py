"""MNIST with some of the ten digits as anomalies, and the base class of all data sets made of MNIST digits.

Layout: `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each gzipped or not. Protocol: the normal digits among the
60 000 training digits train, and all 10 000 test digits are the test split. The authors of EGBAD (Zenati et al. 2018)
draw a new split of all digits instead; those of Multi-KD use one digit as normal and nine as anomalous:
`anomalous=[0, 1, 2, 3, 4, 5, 6, 7, 9]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.idx import IMAGES, LABELS, find_idx, read_idx
from anomaly_lab.data.readers.scan import Origin, Scan
from anomaly_lab.data.twins.mnist import write_twin
from anomaly_lab.types import Case, Range, UserError

_SIDE = 28  # pixels per side of a digit in the files


class _Digits(PatchDataModule):
    """Handwritten digits in the files of MNIST, with a black margin; base class of `MNIST` and `ABMNIST`."""

    where_to_get = (
        "get the four MNIST files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
        "t10k-labels-idx1-ubyte, gzipped or not) and put them into one folder"
    )

    def __init__(self, *, pad: Annotated[int, Range("[0, 1000]")] = 2, **arguments: Any) -> None:
        """Set the option that all data sets of digits share.

        Args:
            pad: width of the black margin in pixels; 2 turns 28×28 into the 32×32 of the papers without resampling.
            **arguments: arguments of PatchDataModule.
        """
        super().__init__(**arguments)
        if pad < 0:
            raise UserError(f"data.pad={pad}: takes a number from 0")
        self.pad = pad
        self._files: dict[Path, np.ndarray] = {}

    def digits(self, root: Path, part: str) -> tuple[Path, np.ndarray]:
        """Return the image file of a part and the digit of each of its images.

        Args:
            root: folder of the files.
            part: "train" or "t10k".

        Raises:
            UserError: a file is missing or unreadable, or the numbers of images and labels differ.
        """
        images, labels = (find_idx(root, f"{part}-{content}-ubyte") for content in ("images-idx3", "labels-idx1"))
        self._files.pop(images, None)  # the files may have changed since they were last listed
        count, digits = len(self.decoded(images)), read_idx(labels, LABELS)
        if len(digits) != count:
            raise UserError(
                f"{labels}: {len(digits)} labels for the {count} images of {images}; download both files again"
            )
        return images, digits

    def decoded(self, path: Path) -> np.ndarray:
        """Return all digits of a file, uint8 [N, H, W]; the result is cached."""
        if path not in self._files:
            self._files[path] = read_idx(path, IMAGES)
        return self._files[path]

    def digit(self, case: Case) -> np.ndarray:
        """Return one digit, uint8 [H, W]."""
        digit: np.ndarray = self.decoded(case.image)[case.frame]
        if digit.min() == digit.max():
            fault = f"image {case.frame}: every pixel is {digit.flat[0]}, the image is constant"
            raise UserError(f"{case.image}, {fault}; replace it, or leave such files out with data.store.on_bad=skip")
        return digit

    def scan(self, digit: np.ndarray, mask: np.ndarray | None = None) -> Scan:
        """Return a digit [H, W] and its mask with the black margin."""
        return Scan(_framed(digit, self.pad, self.in_channels), None if mask is None else _framed(mask, self.pad, 1))

    @property
    def of_files_alone(self) -> str:
        """The black margin."""
        return f"data.pad={self.pad}" if self.pad else ""

    def read_new(self, case: Case) -> Scan:
        """Read an ordinary picture; it gets the margin of a digit, which is wider for a larger picture."""
        scan = PatchDataModule.read(self, case)
        if scan.affine is not None:
            return scan
        height, width = scan.shape
        pad = round(self.pad * max(height, width) / _SIDE)
        origin = Origin((height, width), range(-pad, height + pad), range(-pad, width + pad))
        mask = None if scan.mask is None else origin.cut(scan.mask)
        return replace(scan, pixels=origin.cut(scan.pixels), mask=mask, origin=origin)

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic digits in the official layout."""
        write_twin(root, seed, size)


class MNIST(_Digits):
    """Handwritten digits, of which some are anomalous.

    Examples:
        >>> import tempfile
        >>> data = MNIST(root="none", source="twin", anomalous=(1, 7))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=100)
        ...     cases = data.cases(Path(folder))
        >>> cases[0].id, sorted({case.class_name for case in cases if case.label})
        ('train-00000', ['digit 1', 'digit 7'])
    """

    name = "mnist"
    official: ClassVar[dict[str, int]] = {"images": 70_000}

    def __init__(
        self, *, anomalous: Annotated[Sequence[int], Range("[0, 9]", counts=range(1, 10))] = (8,), **arguments: Any
    ) -> None:
        """Set the options of this data set.

        Args:
            anomalous: the anomalous digits, 0 to 9; at least one digit must be normal.
            **arguments: arguments of _Digits.
        """
        super().__init__(**arguments)
        self.anomalous = frozenset(anomalous)
        if not self.anomalous or not self.anomalous < set(range(10)):
            raise UserError(f"data.anomalous={sorted(anomalous)}: takes one to nine of the digits 0 to 9")

    def cases(self, root: Path) -> list[Case]:
        """List training and test digits with their labels, in the order of their files."""
        return [*self._part(root, "train", "train"), *self._part(root, "t10k", "test")]

    def _part(self, root: Path, part: str, split: str) -> list[Case]:
        path, digits = self.digits(root, part)
        cases = []
        for number, digit in enumerate(digits.tolist()):
            identity, label = f"{part}-{number:05d}", int(digit in self.anomalous)
            class_name = f"digit {digit}" if label else ""
            cases.append(Case(identity, identity, path, label, class_name=class_name, split=split, frame=number))
        return cases

    def read(self, case: Case) -> Scan:
        """Read one digit from its file."""
        return self.scan(self.digit(case))

    def protocol(self) -> dict[str, Any]:
        """Return the options that change labels and pixels."""
        return {"anomalous": sorted(self.anomalous), "pad": self.pad}


def _framed(pixels: np.ndarray, pad: int, channels: int) -> np.ndarray:
    """Pad [H, W] with zeros to [channels, H + 2 pad, W + 2 pad], in an eighth of the time of np.pad."""
    height, width = pixels.shape
    framed = np.zeros((channels, height + 2 * pad, width + 2 * pad), pixels.dtype)
    framed[:, pad : pad + height, pad : pad + width] = pixels
    return framed
