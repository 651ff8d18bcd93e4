"""All baselines together: fitted on the same sample of training normals, asked for scores and maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from anomaly_lab import catalogue
from anomaly_lab.evaluation.baselines.baseline import Baseline, Facts
from anomaly_lab.evaluation.baselines.pca_32 import COMPONENTS
from anomaly_lab.types import UserError

MAX_IMAGES = 2000  # PCA needs an [n, n] matrix, and more images hardly change 32 components
MAX_VALUES = 2**26  # pixels of all images kept in memory: 256 MB of float32


class Baselines(NamedTuple):
    """Every baseline that these images allow, fitted.

    Attributes:
        fitted: the baselines by their keys, in alphabetical order.
        notes: sentences about what was chosen, sampled or left out, for the report.

    Examples:
        >>> train = [torch.tensor([0.0, 2.0, 4.0]).reshape(3, 1, 1, 1)]  # three images of one pixel, mean 2
        >>> scores = Baselines.fit(train).scores([torch.full((1, 1, 1, 1), 5.0)])
        >>> scores["mean_image"].item(), round(scores["pca_32"].item(), 6)  # one axis explains a single pixel fully
        (9.0, 0.0)
    """

    fitted: dict[str, Baseline]
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, train: Iterable[Tensor], facts: Facts | None = None) -> Baselines:
        """Fit the baselines, on a fixed random sample if the images exceed MAX_IMAGES or MAX_VALUES.

        Args:
            train: batches of normal images, [B, C, *S], in a reproducible order.
            facts: what is known besides the images.

        Raises:
            ValueError: `train` is empty.
        """
        sample = _sample(_images(train))
        if not sample:
            raise ValueError("the baselines got no training images: check that the training split is not empty")
        facts, normals = facts or Facts(), torch.stack(sample)
        fitted, notes, left_out = dict[str, Baseline](), list[str](), dict[str, list[str]]()
        for name, kind in kinds().items():
            baseline, reason = kind(), kind.reason_against(tuple(normals.shape[2:]), facts)
            if not reason:
                try:
                    baseline.fit(normals, facts)
                except UserError as error:
                    reason = str(error).rpartition("=package: ")[2]
            if reason:
                left_out.setdefault(reason.strip(), []).append(kind.title)
                continue
            fitted[name] = baseline
            notes += [f"{kind.title}: {baseline.note}."] * bool(baseline.note)
        notes += [f"Left out: {'; '.join(titles)}: {reason}." for reason, titles in left_out.items() if reason]
        return cls(fitted, tuple(notes))

    def scores(self, others: Iterable[Tensor]) -> dict[str, Tensor]:
        """Score images with each baseline; higher = more anomalous, not rescaled.

        Images are scored one by one, so a score does not depend on the batch size.

        Args:
            others: batches of images [B, C, *S] with the shape of the training images.

        Returns:
            Scores by the baselines' keys, each float64 [N], the N images in the given order.
        """
        scores = [[baseline.score(image) for baseline in self.fitted.values()] for image in _images(others)]
        columns = torch.tensor(scores, dtype=torch.float64).reshape(-1, len(self.fitted)).unbind(1)
        return dict(zip(self.fitted, columns, strict=True))

    def maps(self, image: Tensor) -> dict[str, Tensor]:
        """Return anomaly maps of images [B, C, *S], float32 [B, 1, *S], by the keys of the baselines that have any."""
        maps = dict[str, list[Tensor]]()
        for one in _images([image]):
            for name, baseline in self.fitted.items():
                if (found := baseline.map(one)) is not None:
                    maps.setdefault(name, []).append(found[None])
        return {name: torch.stack(parts) for name, parts in maps.items()}


@cache
def kinds() -> dict[str, type[Baseline]]:
    """Return the classes of all baselines by their keys, in alphabetical order.

    Examples:
        >>> sorted(kinds())
        ['brightness', 'low_pass_pca', 'mean_image', 'nearest', 'pca_32', 'place_gaussian', 'place_nn']
    """
    found = catalogue.classes("anomaly_lab.evaluation.baselines").values()
    named = {kind.__module__.rpartition(".")[2]: kind for kind in found if issubclass(kind, Baseline)}
    return {name: kind for name, kind in sorted(named.items()) if kind is not Baseline}


def titles() -> dict[str, str]:
    """Return the names of all baselines for charts and tables, by their keys.

    Examples:
        >>> titles()["mean_image"]
        'Mean-image distance'
    """
    return {name: kind.title for name, kind in kinds().items()}


def _images(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        yield from batch.detach().cpu().float()


def _sample(images: Iterable[Tensor]) -> list[Tensor]:
    """Draw at most MAX_IMAGES images, each with equal probability (reservoir sampling, Vitter 1985, algorithm R).

    They are in the order of the files, in which neighbours may be of one patient.
    """
    random, sample = Random(0), list[tuple[int, Tensor]]()
    for seen, image in enumerate(images):
        limit = min(MAX_IMAGES, max(2 * COMPONENTS, MAX_VALUES // image.numel()))
        if len(sample) < limit:
            sample.append((seen, image.clone()))  # a view would keep its whole batch alive
        elif (place := random.randrange(seen + 1)) < limit:
            sample[place] = seen, image.clone()
    return [image for _, image in sorted(sample, key=lambda drawn: drawn[0])]
