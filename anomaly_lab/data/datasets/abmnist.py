"""ab-MNIST (Shen et al. 2020, adGAN): digits are normal; digits with squares of random position, size and grey are not.

Layout: `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each gzipped or not. Protocol: the 60 000 training digits train;
the test split has the 10 000 test digits twice, unchanged and with squares. The paper does not state the number, size
and brightness of the squares: the defaults are ours, so only the ranking of published results is comparable.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from anomaly_lab.data.datasets.mnist import _Digits
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import Case, Range, Seed, UserError

SIDES = (4, 10)  # smallest and largest side of a square in pixels
GREYS = (0.3, 1.0)  # range of its grey level, as a fraction of full scale
_TRIES = 100  # largest number of draws for a square with enough contrast
_SQUARE = "square"  # the only class of anomaly


class ABMNIST(_Digits):
    """Handwritten digits; half of those in the test split have squares, which are their masks.

    Examples:
        >>> import tempfile
        >>> data = ABMNIST(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=8)
        ...     cases = data.cases(Path(folder))
        >>> [case.id for case in cases if case.split == "test"]
        ['t10k-00000', 't10k-00001', 't10k-00000+square', 't10k-00001+square']
    """

    name = "abmnist"
    version = 1
    official: ClassVar[dict[str, int]] = {"images": 80_000, "normal": 70_000, "anomalous": 10_000}

    def __init__(
        self,
        *,
        squares: Annotated[int, Range("[1, 3]")] = 1,
        fill: Literal["constant", "noise"] = "constant",
        blend: Literal["replace", "add"] = "replace",
        min_contrast: Annotated[float, Range("[0, 0.3]")] = 0.1,
        squares_seed: Seed = 0,
        **arguments: Any,
    ) -> None:
        """Set the options of the squares.

        Args:
            squares: number of squares per anomalous digit, 1 to 3.
            fill: "constant" for one grey level per square, "noise" for one per pixel.
            blend: "replace" overwrites the digit, "add" adds to it up to white.
            min_contrast: minimum mean absolute change of the pixels, as a fraction of white; other squares are drawn
                again.
            squares_seed: seed of the squares, separate from `seed`, so that every run is evaluated on the same digits.
            **arguments: arguments of _Digits.
        """
        super().__init__(**arguments)
        if not (1 <= squares <= 3 and 0 <= min_contrast <= GREYS[0]):
            raise UserError(
                f"data.squares={squares} takes 1 to 3, data.min_contrast={min_contrast} takes 0 to {GREYS[0]}"
            )
        self.squares, self.fill, self.blend = squares, fill, blend
        self.min_contrast, self.squares_seed = min_contrast, squares_seed

    def cases(self, root: Path) -> list[Case]:
        """List the training digits, the test digits, and the test digits again with squares.

        With `supervision=labels` the training digits are there again with squares, too.
        """
        train, test = ((part, *self._counted(root, part)) for part in ("train", "t10k"))
        labelled = _cases(*train, "train", _SQUARE) if self.labelling else ()
        return [*_cases(*train, "train"), *_cases(*test, "test"), *_cases(*test, "test", _SQUARE), *labelled]

    def read(self, case: Case) -> Scan:
        """Read one digit from its file and draw its squares."""
        digit = self.digit(case)
        mask = np.zeros(digit.shape, bool)
        return self.scan(*(self._with_squares(digit, case) if case.label else (digit, mask)))

    def protocol(self) -> dict[str, Any]:
        """Return the options that change pixels and masks."""
        names = ("squares", "fill", "blend", "min_contrast", "squares_seed", "pad")
        return {name: getattr(self, name) for name in names}

    def _counted(self, root: Path, part: str) -> tuple[Path, int]:
        """Return the image file of a part and its number of digits, which must be large enough for squares."""
        path, digits = self.digits(root, part)
        height, width = self.decoded(path).shape[1:]
        if min(height, width) < SIDES[1]:
            raise UserError(
                f"{path}: its images are {height}×{width} pixels, squares have up to {SIDES[1]}; "
                "download the file again"
            )
        return path, len(digits)

    def _with_squares(self, digit: np.ndarray, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Return a copy of the digit, uint8 [H, W], with its squares, and their mask, bool [H, W]."""
        key = [self.squares_seed, case.frame]  # independent of the order in which digits are read
        rng = np.random.default_rng(key if case.split == "test" else [*key, 1])
        mask = np.zeros(digit.shape, bool)
        for _ in range(self.squares):
            digit, window = self._visible_square(rng, digit)
            mask[window] = True
        return digit, mask

    def _visible_square(self, rng: np.random.Generator, digit: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
        """Draw squares until one has enough contrast; after _TRIES draws, return the best one."""
        highest = -1.0
        for _ in range(_TRIES):
            changed, window = self._square(rng, digit)
            contrast = float(np.abs(changed[window].astype(int) - digit[window]).mean()) / 255
            if contrast > highest:
                highest, best = contrast, (changed, window)
            if highest >= self.min_contrast:
                break
        return best

    def _square(self, rng: np.random.Generator, digit: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
        """Return a copy of the digit with one more square, and the window of that square."""
        side = int(rng.integers(SIDES[0], SIDES[1] + 1))
        top, left = (int(rng.integers(0, length - side + 1)) for length in digit.shape)
        window = (slice(top, top + side), slice(left, left + side))
        grey = rng.uniform(*GREYS) if self.fill == "constant" else rng.uniform(0, 1, (side, side))
        value = np.rint(255 * np.broadcast_to(grey, (side, side)))
        changed = digit.copy()
        changed[window] = value if self.blend == "replace" else np.minimum(digit[window] + value, 255)
        return changed, window


def _cases(part: str, path: Path, count: int, split: str, class_name: str = "") -> Iterator[Case]:
    """Yield the digits of a file; a digit with squares and the same digit without belong to one patient."""
    for number in range(count):
        patient = f"{part}-{number:05d}"
        identity = f"{patient}+{class_name}" if class_name else patient
        yield Case(identity, patient, path, int(bool(class_name)), class_name=class_name, split=split, frame=number)
