"""Types that all packages share: Case, Batch, Prediction, training phases, UserError and constraints on settings."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, TypedDict, get_args, get_type_hints
from typing import runtime_checkable as checkable

if TYPE_CHECKING:  # the command line reads UserError from here before it knows whether torch is needed
    from torch import Tensor


Cases = Literal["normal", "balanced", "all"]  # that a phase of the training draws


class UserError(Exception):
    """An error the user can correct.

    It is shown as one line (what is wrong, in which file, what to do); the exit status is 2.
    """


class FailedElsewhereError(UserError):
    """The error of another process of the same run, which says it; this one ends quietly.

    Attributes:
        status: exit status.

    Examples:
        >>> FailedElsewhereError(2).status
        2
    """

    def __init__(self, status: int) -> None:
        super().__init__("another process of the run has failed and says why")
        self.status = status


class Stopped(SystemExit):
    """A signal ended the work. The process ends with status 128 + signal, as a shell has it.

    Attributes:
        signal: its number.

    Examples:
        >>> Stopped(15).code
        143
    """

    def __init__(self, signal: int) -> None:
        super().__init__(128 + int(signal))
        self.signal = int(signal)


@dataclass(frozen=True, slots=True)
class Case:
    """A scan on disk: paths and metadata, no pixels.

    Attributes:
        id: unique within the data set; the score is reported under this name.
        patient: group key; all cases of a patient belong to the same split. A name or number from a file header is
            never stored, nor a hash of it.
        image: the image file; for a DICOM series, the first of its files.
        label: 0 normal, 1 anomalous. It is the label of the whole scan, even if most of its patches are normal.
        mask: file with the segmented lesion, if there is one.
        class_name: class in the terms of the data set, one of several that share label 1; empty if there is only one.
            Several classes of one case are joined by "+".
        unknown: classes about which the owners of the data say neither yes nor no.
        split: split assigned by the publishers of the data set ("train", "val", "test"); None if they assign none.
        frame: index of the image in a multi-frame file.
        box: region of the image that makes up the case, (row, column, height, width) in pixels; None for all of it.
        slices: the other files of a DICOM series.

    Examples:
        >>> Case(id="scan_7", patient="5f3c", image=Path("scan_7.png"), label=1).split is None
        True
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
    unknown: tuple[str, ...] = ()


class Batch(TypedDict, total=False):
    """One item of a data loader.

    image: float32 in [-1, 1]; [B, C, *S] for evaluation, [minibatches, B, C, *S] for training.
    label: [B], 0 normal, 1 anomalous. mask: bool [B, 1, *S], if the data set has masks. row: [B], row in the store.
    target: int8 [B, K], for training [minibatches, B, K], only with `data.supervision=labels`: 1 where the image is of
    the class, 0 where it is not, -1 where that is unknown.
    """

    image: Tensor
    label: Tensor
    mask: Tensor
    row: Tensor
    target: Tensor


class Prediction(NamedTuple):
    """Output of a detector for a batch of images. Scores are raw and never rescaled; higher = more anomalous.

    anomaly_score: [B], unbounded. anomaly_map: [B, 1, *S], non-negative. reconstruction: [B, C, *S] in [-1, 1].
    probabilities: [B, K] in [0, 1], of a detector that has learnt classes.
    components: what the score was computed from, [B, K], in the order of the detector's `components`.
    """

    anomaly_score: Tensor
    anomaly_map: Tensor | None = None
    reconstruction: Tensor | None = None
    probabilities: Tensor | None = None
    components: Tensor | None = None


class Phase(NamedTuple):
    """A section of the training; its length is counted in iterations of the paper's algorithm.

    Attributes:
        name: the detector's method `<name>_step` performs one iteration.
        iterations: number of iterations.
        networks: names of the networks that are trained; all others are frozen and in eval mode.
        minibatches: fresh mini-batches per iteration (n_critic in a WGAN phase).
        cases: the training cases that are drawn: "normal"; "balanced", all anomalous ones and as many normal ones,
            which are drawn anew for each pass; or "all" as they come. The last two need `data.supervision=labels`.
        share: part of the training patients whose cases are drawn, (begin, end) in [0, 1] of their order by the seed.
    """

    name: str
    iterations: int
    networks: tuple[str, ...]
    minibatches: int = 1
    cases: Cases = "normal"
    share: tuple[float, float] = (0.0, 1.0)


class Schedule(tuple[Phase, ...]):
    """The phases of a training in order. The number of iterations done determines the current phase.

    Examples:
        >>> gan = Phase("gan", 10, ("generator", "critic"), minibatches=5)
        >>> schedule = Schedule([gan, Phase("encoder", 4, ("encoder",))])
        >>> schedule.iterations, schedule.phase_at(10).name, schedule.span("encoder")
        (14, 'encoder', range(10, 14))
        >>> schedule.minibatches_before(12)  # 10 iterations of 5 mini-batches, 2 iterations of 1
        52
    """

    __slots__ = ()

    @property
    def iterations(self) -> int:
        """Number of iterations in all phases together."""
        return sum(phase.iterations for phase in self)

    def phase_at(self, iteration: int) -> Phase:
        """Return the phase of iteration number `iteration` (from 0), or the last phase if training is over."""
        for phase in self:
            if iteration < phase.iterations:
                return phase
            iteration -= phase.iterations
        return self[-1]

    def span(self, name: str) -> range:
        """Return the iterations (from 0) of the phase called `name`; an empty range at 0 if there is no such phase."""
        start = 0
        for phase in self:
            if phase.name == name:
                return range(start, start + phase.iterations)
            start += phase.iterations
        return range(0)

    def minibatches_before(self, iteration: int) -> int:
        """Return the number of mini-batches drawn before iteration number `iteration` (from 0)."""
        drawn = 0
        for phase in self:
            drawn += min(iteration, phase.iterations) * phase.minibatches
            iteration = max(0, iteration - phase.iterations)
        return drawn

    def epoch_end(self, iteration: int, length: int) -> int:
        """Return the iteration at which the Lightning epoch ends that `iteration` belongs to.

        Epochs end at every multiple of `length` iterations of a phase, and at the phase's end. A training that goes on
        in the middle of an epoch therefore ends it where it would have ended anyway.
        """
        begin = 0
        for phase in self:
            if (done := iteration - begin) < phase.iterations:
                return begin + min((done // length + 1) * length, phase.iterations)
            begin += phase.iterations
        return begin

    def epochs_left(self, iteration: int, length: int) -> int:
        """Return the number of Lightning epochs of `length` iterations that remain after `iteration`."""
        epochs = 0
        while iteration < self.iterations:
            iteration = self.epoch_end(iteration, length)
            epochs += 1
        return epochs


@checkable
class Constraint(Protocol):
    """A restriction on the values of a setting, given as metadata of an `Annotated` type.

    `str` completes the sentence "takes …", for example "takes a number in [0, 1]".
    """

    def admits(self, value: Any) -> bool:
        """Return whether `value`, a plain Python value, is allowed."""


@dataclass(frozen=True)
class Range:
    """A number, or every number of a list, must lie within an interval.

    Attributes:
        interval: in mathematical notation: "[" and "]" include the end point, "(" and ")" exclude it.
        counts: allowed lengths of a list; None for any length.

    Examples:
        >>> width = Annotated[int, Range("[1, 4096]")]
        >>> Range("(0, 1]").admits(0), Range("(0, 1]").admits(1), Range("(0, inf)").admits(float("inf"))
        (False, True, False)
        >>> Range("[0, 1]", counts=(3,)).admits([0.1, 0.2, 0.3])
        True
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
        lengths = f", or a list of {' or '.join(map(str, self.counts))}" if isinstance(self.counts, tuple) else ""
        return f"a number in {self.interval}{lengths}"


@dataclass(frozen=True)
class Square:
    """Two equal side lengths in pixels, from `least` to 2048.

    Attributes:
        least: smallest side allowed.
        power_of_two: whether the side must be a power of two.

    Examples:
        >>> Square(8).admits((64, 64)), Square(8).admits((48, 48)), Square(8, power_of_two=False).admits((48, 48))
        (True, False, True)
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


@dataclass(frozen=True)
class FolderName:
    r"""The name of a folder or file, without a path: nothing is written beside the folder it is meant for.

    Examples:
        >>> names = ("fanogan_headct", "my scans", "../x", "/tmp/x", ".x", "a\x1b[2J", "")
        >>> [FolderName().admits(name) for name in names]
        [True, True, False, False, False, False, False]
    """

    def admits(self, value: Any) -> bool:
        if not isinstance(value, str) or not value.strip() or len(value.encode(errors="replace")) > 128:
            return False
        return value.isprintable() and value[0] not in ".-~" and not set(value) & {"/", "\\"}

    def __str__(self) -> str:
        return "a name of up to 128 letters, without slashes and not beginning with a dot"


Channels = Literal[1, 3]  # of an image: grey or colour
Name = Annotated[str, FolderName()]
Seed = Annotated[int, Range("[0, 4294967295]")]
Width = Annotated[int, Range("[1, 4096]")]  # channels of a network
CodeLength = Annotated[int, Range("[1, 65536]")]  # of a latent code
Iterations = Annotated[int, Range("[1, 10000000]")]
Count = Annotated[int, Range("[1, 1000000]")]
Rate = Annotated[float, Range("(0, 1]")]  # learning rates
Weight = Annotated[float, Range("[0, 1000000]")]  # of a term in a loss or a score
Fraction = Annotated[float, Range("[0, 1]")]


def constraints(annotation: Any) -> Iterator[Constraint]:
    """Yield the constraints in a type annotation, including those of the members of a union.

    Examples:
        >>> for constraint in constraints(Rate | None):
        ...     print(constraint)
        a number in (0, 1]
    """
    yield from (item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Constraint))
    if not hasattr(annotation, "__metadata__"):
        for member in get_args(annotation):
            yield from constraints(member)


def refuse_out_of_range(kind: type, values: Mapping[str, Any]) -> None:
    """Check the values of a dataclass, or the arguments of a constructor, against the constraints in their annotations.

    Args:
        kind: dataclass, or class with an annotated `__init__`.
        values: value of each field or argument by name; None is always allowed.

    Raises:
        ValueError: a value violates its constraint.

    Examples:
        >>> @dataclass
        ... class Settings:
        ...     rate: Rate
        >>> refuse_out_of_range(Settings, {"rate": 0.1})
        >>> refuse_out_of_range(Settings, {"rate": 2.0})
        Traceback (most recent call last):
        ValueError: rate=2.0: takes a number in (0, 1]
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
