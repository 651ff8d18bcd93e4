"""The three nouns that cross every border (Case, Batch, Prediction), the phases of a training and the user's error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

if TYPE_CHECKING:  # the command line reads UserError from here before it knows whether torch is needed
    from torch import Tensor


class UserError(Exception):
    """Something the user can put right. Shown as one line (what, which file, what to do), exit status 2."""


@dataclass(frozen=True, slots=True)
class Case:
    """One scan on disk: paths and facts, no pixels.

    Attributes:
        id: unique within the data set; the name under which its score is reported.
        patient: group key that may not cross splits; never a name or number from a header, only a hash of it.
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
