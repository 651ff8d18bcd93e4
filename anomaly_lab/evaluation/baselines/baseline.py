"""Baseline: the interface of a method that is fitted to training normals at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

Brightness = Literal["bright", "dark"]


@dataclass(frozen=True)
class Facts:
    """What baselines may know besides the training normals.

    Attributes:
        brightness: whether anomalies of this data set are brighter or darker than normal tissue, as its class declares
            from knowledge of the field; None if it is silent.
        features: whether features of a pretrained network may be computed.

    Examples:
        >>> Facts(brightness="bright").features
        True
    """

    brightness: Brightness | None = None
    features: bool = True


class Baseline(ABC):
    """A method that is fitted at once. Its key in scores.csv and metrics.json is the name of its module.

    Attributes:
        title: its name in charts and tables.
        noun: its name in a sentence, as in "the PCA-32 baseline".
        rule: what its score is, a sentence for the report.
        note: what was chosen or sampled in `fit`, for the report; empty if there is nothing to say.

    Examples:
        >>> class Contrast(Baseline):
        ...     title, noun, rule = "Contrast", "contrast", "standard deviation of the image"
        ...
        ...     def fit(self, normals, facts):
        ...         pass
        ...
        ...     def score(self, image):
        ...         return float(image.std())
        >>> Contrast().reason_against((64, 64), Facts())
        ''
    """

    title: ClassVar[str]
    noun: ClassVar[str]
    rule: ClassVar[str]
    note: str = ""

    @classmethod
    def reason_against(cls, size: tuple[int, ...], facts: Facts) -> str:
        """Return why it cannot be fitted to images of this size, two or three sides; empty if it can.

        A blank means that it makes no sense there, which nobody needs to be told.
        """
        return ""

    @abstractmethod
    def fit(self, normals: Tensor, facts: Facts) -> None:
        """Fit to the training normals [n, C, *S] in [-1, 1], n > 0.

        Raises:
            UserError: something it needs is not installed.
        """

    @abstractmethod
    def score(self, image: Tensor) -> float:
        """Return the score of an image [C, *S]; higher = more anomalous, not rescaled."""

    def map(self, image: Tensor) -> Tensor | None:
        """Return the anomaly map [*S] >= 0 of an image [C, *S]; None if the method has none."""
        return None
