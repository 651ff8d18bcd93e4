"""ab-MNIST (Shen et al. 2020, adGAN): digits are normal; digits with squares of random place, size and grey are not.

Layout: `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each gzipped or not. Protocol: the 60 000 training digits train;
the 10 000 test digits are judged as they are and once more with squares (DATASETS §1). The paper leaves open how
many squares, how large and how bright: the defaults are ours, so published figures compare in their order only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from anomaly_lab.data.datasets.mnist import _Digits
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import Case, Range, Seed, UserError

SIDES = (4, 10)  # pixels of a square, both included
GREYS = (0.3, 1.0)  # of full scale
_TRIES = 100  # draws of a square that changes too little, before the best of them is taken
_SQUARE = "square"  # the one kind of anomaly


class ABMNIST(_Digits):
    """Handwritten digits, half of the judged ones with squares, which are their masks."""

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
        """Check the options of the squares; the rest is the base class's.

        Args:
            squares: how many an anomalous digit gets, 1 to 3.
            fill: "constant" grey or "noise", a grey of its own for each pixel.
            blend: "replace" what was there, or "add" to it up to white.
            min_contrast: a square that changes its pixels by less on average, in fractions of white, is drawn again.
            squares_seed: of the squares, apart from `seed` so that every run is judged on the same digits.
            **arguments: of _Digits.
        """
        super().__init__(**arguments)
        if not (1 <= squares <= 3 and 0 <= min_contrast <= GREYS[0]):
            raise UserError(f"data: squares lies in 1..3, min_contrast in 0..{GREYS[0]}")
        self.squares, self.fill, self.blend = squares, fill, blend
        self.min_contrast, self.squares_seed = min_contrast, squares_seed

    def cases(self, root: Path) -> list[Case]:
        """List the training digits, the test digits, and the test digits again with squares."""
        train, test = ((part, *self._counted(root, part)) for part in ("train", "t10k"))
        return [*_cases(*train, "train"), *_cases(*test, "test"), *_cases(*test, "test", _SQUARE)]

    def read(self, case: Case) -> Scan:
        """Cut one digit from its file and draw its squares."""
        digit = self.digit(case)
        mask = np.zeros(digit.shape, bool)
        return self.scan(*(self._with_squares(digit, case.frame) if case.label else (digit, mask)))

    def protocol(self) -> dict[str, Any]:
        """What the pixels and masks depend on besides the files."""
        names = ("squares", "fill", "blend", "min_contrast", "squares_seed", "pad")
        return {name: getattr(self, name) for name in names}

    def _counted(self, root: Path, part: str) -> tuple[Path, int]:
        """The images' file of a part and how many digits it holds, which must have room for squares."""
        path, which = self.digits(root, part)
        height, width = self.decoded(path).shape[1:]
        if min(height, width) < SIDES[1]:
            size = f"{height}×{width}"
            raise UserError(f"{path}: its images are {size} pixels, squares go up to {SIDES[1]}; get the file again")
        return path, len(which)

    def _with_squares(self, digit: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A copy of uint8 [H, W] with its squares, and where they are, bool [H, W]."""
        rng = np.random.default_rng([self.squares_seed, number])  # its own: the order of reading does not matter
        mask = np.zeros(digit.shape, bool)
        for _ in range(self.squares):
            digit, window = self._visible_square(rng, digit)
            mask[window] = True
        return digit, mask

    def _visible_square(self, rng: np.random.Generator, digit: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
        """The first draw with enough contrast, or the best of many."""
        most = -1.0
        for _ in range(_TRIES):
            changed, window = self._square(rng, digit)
            contrast = float(np.abs(changed[window].astype(int) - digit[window]).mean()) / 255
            if contrast > most:
                most, best = contrast, (changed, window)
            if most >= self.min_contrast:
                break
        return best

    def _square(self, rng: np.random.Generator, digit: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
        """A copy of the digit with one more square, and the window it fills."""
        side = int(rng.integers(SIDES[0], SIDES[1] + 1))
        top, left = (int(rng.integers(0, length - side + 1)) for length in digit.shape)
        window = (slice(top, top + side), slice(left, left + side))
        grey = rng.uniform(*GREYS) if self.fill == "constant" else rng.uniform(0, 1, (side, side))
        value = np.rint(255 * np.broadcast_to(grey, (side, side)))
        changed = digit.copy()
        changed[window] = value if self.blend == "replace" else np.minimum(digit[window] + value, 255)
        return changed, window


def _cases(part: str, path: Path, count: int, split: str, kind: str = "") -> Iterator[Case]:
    """The digits of a file; a digit with squares and the same digit without are one patient."""
    for number in range(count):
        patient = f"{part}-{number:05d}"
        identity = f"{patient}+{kind}" if kind else patient
        yield Case(identity, patient, path, int(bool(kind)), class_name=kind, split=split, frame=number)
