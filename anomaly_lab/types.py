"""Nouns that cross every border: Case, Batch, Prediction; phases of a training; the user's error; ranges of values."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, TypedDict, get_args, get_type_hints
from typing import runtime_checkable as checkable

if TYPE_CHECKING:  # the command line reads UserError from here before it knows whether torch is needed
    from torch import Tensor


class UserError(Exception):
    """Something the user can put right. Shown as one line (what, which file, what to do), exit status 2."""


@dataclass(frozen=True, slots=True)
class Case:
    """One scan on disk: paths and facts, no pixels.

    Attributes:
        id: unique within the data set; the name under which its score is reported.
        patient: group key that may not cross splits; never a name or number from a header, nor a hash of it.
        image: the file; of a DICOM series the first of its files.
        label: 0 normal, 1 anomalous; of a whole scan, whatever its patches are.
        mask: file of the known lesion, where there is one.
        class_name: its class in the data set's own words, one of several under label 1; empty where there is one only.
        split: where the data set's owners put it ("train", "val", "test"), or None where they leave that open.
        frame: number of the image in a file that holds many.
        box: region of the image that is the case, (row, column, height, width) in pixels; None for all of it.
        slices: the other files of a DICOM series.
    """

    id: str
    patient: str
    image: Path
    label: int
    mask: Path | None = None
    class_name: str = ""
    split: str | None = None
    frame: int = 0
    box: tuple[int, int, int, int] | None = None
    slices: tuple[Path, ...] = ()


class Batch(TypedDict, total=False):
    """What a loader yields.

    image: float32 in [-1, 1]; [B, C, *S] when judging, [minibatches, B, C, *S] when training.
    label: [B], 0 normal, 1 anomalous. mask: bool [B, 1, *S], where the data set has masks. row: [B], row of the store.
    """

    image: Tensor
    label: Tensor
    mask: Tensor
    row: Tensor


class Prediction(NamedTuple):
    """What a detector says of a batch of images; higher = more anomalous, never rescaled.

    anomaly_score: [B], unbounded. anomaly_map: [B, 1, *S], non-negative. reconstruction: [B, C, *S] in [-1, 1].
    """

    anomaly_score: Tensor
    anomaly_map: Tensor | None = None
    reconstruction: Tensor | None = None


class Phase(NamedTuple):
    """A stretch of the training, counted in iterations of the paper's algorithm.

    Attributes:
        name: the detector's method `<name>_step` does one iteration of it.
        iterations: how many.
        networks: those that move; all others are frozen, in eval mode.
        minibatches: fresh mini-batches an iteration takes (n_critic in a WGAN phase).
    """

    name: str
    iterations: int
    networks: tuple[str, ...]
    minibatches: int = 1


class Schedule(tuple[Phase, ...]):
    """The phases of a training in their order; everything follows from the number of iterations done."""

    __slots__ = ()

    @property
    def iterations(self) -> int:
        """Length of the whole training."""
        return sum(phase.iterations for phase in self)

    def phase_at(self, iteration: int) -> Phase:
        """The phase that iteration number `iteration` (from 0) belongs to; the last one when training is over."""
        for phase in self:
            if iteration < phase.iterations:
                return phase
            iteration -= phase.iterations
        return self[-1]

    def span(self, name: str) -> range:
        """The iterations (from 0) of the phase called `name`; empty, at 0, where there is none."""
        begun = 0
        for phase in self:
            if phase.name == name:
                return range(begun, begun + phase.iterations)
            begun += phase.iterations
        return range(0)

    def minibatches_before(self, iteration: int) -> int:
        """Mini-batches drawn before iteration number `iteration` (from 0)."""
        drawn = 0
        for phase in self:
            drawn += min(iteration, phase.iterations) * phase.minibatches
            iteration = max(0, iteration - phase.iterations)
        return drawn

    def epoch_end(self, iteration: int, length: int) -> int:
        """Where the Lightning epoch that begins at `iteration` ends: after `length` iterations or with the phase."""
        end = 0
        for phase in self:
            end += phase.iterations
            if iteration < end:
                return min(iteration + length, end)
        return end

    def epochs_left(self, iteration: int, length: int) -> int:
        """How many Lightning epochs of `length` iterations remain after `iteration`."""
        epochs = 0
        while iteration < self.iterations:
            iteration = self.epoch_end(iteration, length)
            epochs += 1
        return epochs


@checkable
class Constraint(Protocol):
    """What a setting may be, as metadata of an `Annotated` type; `str` says it as in "takes a number in [0, 1]"."""

    def admits(self, value: Any) -> bool:
        """Whether a value, plain Python, may be given."""


@dataclass(frozen=True)
class Range:
    """A number, or each of several, within an interval.

    >>> width = Annotated[int, Range("[1, 4096]")]
    >>> Range("(0, 1]").admits(0), Range("(0, 1]").admits(1), Range("(0, inf)").admits(float("inf"))
    (False, True, False)
    >>> Range("[0, 1]", counts=(3,)).admits([0.1, 0.2, 0.3])
    True

    Attributes:
        interval: as written in mathematics: "[" and "]" include the end beside them, "(" and ")" leave it out.
        counts: how many numbers a list may have; None for any.
    """

    interval: str
    counts: Container[int] | None = None

    def admits(self, value: Any) -> bool:
        if isinstance(value, list | tuple):
            return (self.counts is None or len(value) in self.counts) and all(map(self.admits, value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = map(float, self.interval[1:-1].split(","))
        above = value >= low if self.interval[0] == "[" else value > low
        below = value <= high if self.interval[-1] == "]" else value < high
        return above and below

    def __str__(self) -> str:
        several = f", or a list of {' or '.join(map(str, self.counts))}" if isinstance(self.counts, tuple) else ""
        return f"a number in {self.interval}{several}"


@dataclass(frozen=True)
class Square:
    """Two equal sides in pixels, of `least` to 2048.

    Attributes:
        least: smallest side.
        power_of_two: whether the side must be one.
    """

    least: int
    power_of_two: bool = True

    def admits(self, value: Any) -> bool:
        if not (isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]):
            return False
        side = value[0]
        return isinstance(side, int) and self.least <= side <= 2048 and not (self.power_of_two and side & (side - 1))

    def __str__(self) -> str:
        return f"two equal sides,{' a power of two' * self.power_of_two} from {self.least} to 2048"


Channels = Literal[1, 3]  # of a picture: grey or colour
Seed = Annotated[int, Range("[0, 4294967295]")]
Width = Annotated[int, Range("[1, 4096]")]  # channels of a network
CodeLength = Annotated[int, Range("[1, 65536]")]  # of a latent code
Iterations = Annotated[int, Range("[1, 10000000]")]
Count = Annotated[int, Range("[1, 1000000]")]
Rate = Annotated[float, Range("(0, 1]")]  # learning rates
Weight = Annotated[float, Range("[0, 1000000]")]  # of a term of a loss or a score
Fraction = Annotated[float, Range("[0, 1]")]


def constraints(annotation: Any) -> Iterator[Constraint]:
    """The constraints in a type, those of a union's members included.

    >>> [str(found) for found in constraints(Rate | None)]
    ['a number in (0, 1]']
    """
    yield from (found for found in getattr(annotation, "__metadata__", ()) if isinstance(found, Constraint))
    if not hasattr(annotation, "__metadata__"):
        for member in get_args(annotation):
            yield from constraints(member)


def refuse_out_of_range(kind: type, values: Mapping[str, Any]) -> None:
    """Compare a dataclass's values, or a constructor's arguments, with the constraints of their types.

    Raises:
        ValueError: a value is not admitted; None always is.
    """
    for name, allowed in _constraints_of(kind).items():
        for constraint in allowed:
            if (value := values.get(name)) is not None and not constraint.admits(value):
                raise ValueError(f"{name}={value}: takes {constraint}")


@cache
def _constraints_of(kind: type) -> dict[str, tuple[Constraint, ...]]:
    hints = get_type_hints(
        kind if hasattr(kind, "__dataclass_fields__") else vars(kind)["__init__"], include_extras=True
    )
    return {name: tuple(constraints(hint)) for name, hint in hints.items()}
