"""Scores from anomaly maps: what the map of a detector shows, smoothed, on one side, place by place, pooled.

A reconstruction often finds what the detector's own score throws away. From the signed difference of image and
reconstruction, or the detector's map where it does not reconstruct, this makes another map and a score of it. Nothing
is trained; with `standardise` the mean and deviation of the map at every place are measured on normals. With `features`
the score is the sum of two, each in deviations of normals: that of the map, and a distance in features of a classifier.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.evaluation.memory import MAX_NORMALS as REMEMBERED
from anomaly_lab.evaluation.memory import Memory
from anomaly_lab.evaluation.scoring import Score
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.lesions.lesion import smoothed
from anomaly_lab.networks.places import pooled
from anomaly_lab.types import Batch, Prediction, UserError

FILE = "score.npz"  # in the run folder: what was measured on the normals
SIDE = 64  # pixels; `smooth` is given for a picture with sides of that length
LEAST_DEVIATION = 0.01  # of a term among normals, as a share of its mean
TERMS = ("map", "features")  # of the score, with features
MAX_NORMALS = 1000  # normals on which the places are measured, at most
AT_ONCE = 64  # normals whose features are computed at once


@dataclass
class MapScore:
    """Turns a prediction into one whose map and score follow a rule.

    Attributes:
        rule: the settings.
        count: number of normals that were measured; 0 if none were needed.
        mean: of the map at every place, [1, *S].
        squares: sum of the squared distances from it, [1, *S].
        known: digests of the images measured, numbered as they came: each of them is judged by the others, as a new
            image is.
        memory: features of the images measured, in the order of their numbers; None without `features`.
        deviation: standard deviation of the two terms of the score, map and features, over normals, [2]. The score is
            the sum of both terms in these deviations; their mean, a constant, is not subtracted, so that scores stay
            positive.

    Examples:
        >>> image = torch.zeros(1, 1, 8, 8)
        >>> image[0, 0, 2, 3] = 0.5
        >>> flat = Prediction(torch.zeros(1), reconstruction=torch.zeros(1, 1, 8, 8))
        >>> bright, dark = (MapScore(ScoreRule("map", sign=sign, pool="max")) for sign in ("bright", "dark"))
        >>> bright(image, flat).anomaly_score.tolist(), dark(image, flat).anomaly_score.tolist()
        ([0.5], [0.0])
    """

    rule: ScoreRule
    count: int = 0
    mean: Tensor | None = None
    squares: Tensor | None = None
    known: dict[str, int] = field(default_factory=dict)
    memory: Memory | None = None
    deviation: Tensor = field(default_factory=lambda: torch.ones(2))

    @classmethod
    def fit(
        cls,
        rule: ScoreRule,
        score: Score,
        images: Iterable[Tensor],
        device: torch.device | str = "cpu",
        held_out: Iterable[Tensor] = (),
    ) -> MapScore:
        """Measure the places on normals, if the rule needs it.

        Args:
            rule: the settings.
            score: a detector's `score`, its own.
            images: normals in batches [B, C, *S].
            device: where the detector's weights are.
            held_out: normals that say how large the two terms are with `features`: a detector redraws those that it was
                trained on too well, and its map would weigh too much. If there are none, `images` say it.

        Raises:
            UserError: the rule needs a reconstruction or a map that the detector does not have, or there are fewer than
                two normals.
        """
        fitted = cls(rule)
        if not rule.measures:
            return fitted
        kept, fresh = list[Tensor](), list[Tensor]()
        for image in images:
            there = image.to(device)
            values = fitted._signed(there, score(Batch(image=there))).cpu().double()
            is_fresh = [fitted._add(one, value) for one, value in zip(image, values, strict=True)]
            if rule.features:
                kept.append(image)
                fresh.append(image[is_fresh])
        if fitted.count < 2:
            raise UserError(
                f"score.standardise=place, score.features: it takes two normals at least to measure them, and "
                f"score.normals={rule.normals} gives {fitted.count}; set score.standardise=none score.features=false"
            )
        if rule.features:
            fitted._remember(torch.cat(fresh), device)
            fitted.deviation = _deviation(*(fitted._terms_of(score, group, device) for group in (kept, held_out)))
        return fitted

    def __call__(self, image: Tensor, prediction: Prediction) -> Prediction:
        """Return the prediction with another score and map.

        Args:
            image: [B, C, *S] in [-1, 1].
            prediction: the detector's own, of these images.

        Raises:
            UserError: the rule needs a reconstruction or a map that the detector does not have.
        """
        shown = self._shown(image, self._signed(image, prediction), prediction.reconstruction is not None)
        if self.memory is None:
            return prediction._replace(anomaly_score=self._pooled(shown), anomaly_map=shown)
        terms, distances = self._terms(image, shown)
        deviation = self.deviation.to(terms)
        score = (terms / deviation).sum(1)
        seen = F.interpolate(distances[:, None], size=tuple(shown.shape[2:]), mode="bilinear")
        anomaly_map = shown / deviation[0] + seen / deviation[1]
        return prediction._replace(anomaly_score=score, anomaly_map=anomaly_map, components=terms)

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the terms of the score; none if it has but one."""
        return () if self.memory is None else TERMS

    def for_new_images(self) -> MapScore:
        """Return what judges every image as a new one, none as one of the normals that were measured."""
        return replace(self, known={})

    def save(self, run: Path) -> None:
        """Write what was measured into a run folder; an earlier file is replaced, or removed if nothing was."""
        if self.mean is None or self.squares is None:
            (run / FILE).unlink(missing_ok=True)
            return
        buffer, known = io.BytesIO(), np.array(list(self.known))
        arrays: dict[str, Any] = {"count": self.count, "mean": self.mean, "squares": self.squares, "known": known}
        if self.memory is not None:
            arrays["rows"], arrays["weights"] = self.memory.rows.cpu(), self.memory.digest
            arrays["deviation"] = self.deviation
        np.savez_compressed(buffer, **arrays)
        write_atomic(run / FILE, buffer.getvalue())

    @classmethod
    def load(cls, rule: ScoreRule, run: Path) -> MapScore:
        """Read what was measured for a run.

        Raises:
            UserError: the file is missing or damaged, or the network of its features is another one.
        """
        if not rule.measures:
            return cls(rule)
        try:
            with np.load(run / FILE, allow_pickle=False) as kept:
                mean, squares = (torch.from_numpy(kept[name]).double() for name in ("mean", "squares"))
                known = {digest: number for number, digest in enumerate(kept["known"].tolist())}
                found = cls(rule, int(kept["count"]), mean, squares, known)
                if not rule.features:
                    return found
                rows, weights = torch.from_numpy(kept["rows"]), str(kept["weights"])
                found.deviation = torch.from_numpy(kept["deviation"])
        except (OSError, ValueError, KeyError, BadZipFile, EOFError, TypeError) as error:
            raise UserError(
                f"{run / FILE}: what the score was measured on cannot be read ({type(error).__name__}); "
                f"run: make evaluate RUN={run}"
            ) from error
        found.memory = Memory(mean.shape)
        if found.memory.digest != weights or found.memory.rows.shape[1:] != rows.shape[1:]:
            raise UserError(
                f"{run / FILE}: its features are of other weights than those of the installed package; "
                f"run: make evaluate RUN={run}"
            )
        found.memory.rows = rows
        return found

    def _signed(self, image: Tensor, prediction: Prediction) -> Tensor:
        """Return the smoothed difference of image and reconstruction, or the map of a detector without one, [B, 1, *S].

        It is smoothed with its sign, so that what is bright here and dark there cancels out: noise does, a lesion does
        not.
        """
        if prediction.reconstruction is not None:
            values = (image - prediction.reconstruction).mean(1, keepdim=True)
        elif self.rule.sign != "both":
            raise UserError(
                f"score.sign={self.rule.sign}: this detector does not reconstruct, so its map has no sign; set "
                "score.sign=both"
            )
        elif prediction.anomaly_map is None:
            raise UserError("score.from=map: this detector has no anomaly map; set score.from=detector")
        else:
            values = prediction.anomaly_map
        sigma = self.rule.smooth * min(values.shape[2:]) / SIDE
        return smoothed(values.flatten(0, 1).float(), sigma).view_as(values) if sigma else values.float()

    def _shown(self, image: Tensor, values: Tensor, has_sign: bool) -> Tensor:
        """Return the map, [B, 1, *S], from signed differences: standardised, and on the side that counts."""
        if self.rule.standardise == "place" and self.mean is not None:
            values = self._standardised(image, values)
        return _SIDES[self.rule.sign if has_sign else "bright"](values)

    def _terms(self, image: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Return the terms of the score, map and features, [B, 2], and the distances of the features, [B, h, w]."""
        assert self.memory is not None
        own = [self.known.get(_digest(one)) for one in image] if self.known else None
        distances = self.memory.distances(image, own)
        return torch.stack([self._pooled(shown), pooled(distances, self.rule.share)], 1), distances

    def _terms_of(self, score: Score, normals: Iterable[Tensor], device: torch.device | str) -> Tensor:
        """Return the terms of normals in batches, [n, 2]; a known one is judged by the others."""
        there = (image.to(device) for image in normals)
        found = [self(image, score(Batch(image=image))).components for image in there]
        return torch.cat([torch.zeros(0, 2), *(terms.cpu() for terms in found if terms is not None)])

    def _add(self, image: Tensor, value: Tensor) -> bool:
        """Add a normal to the mean and the squares (Welford 1962); return whether it is the first of its like."""
        mean = torch.zeros_like(value) if self.mean is None else self.mean
        squares = torch.zeros_like(value) if self.squares is None else self.squares
        self.count += 1
        self.mean = mean + (value - mean) / self.count
        self.squares = squares + (value - mean) * (value - self.mean)
        number = len(self.known)
        return self.known.setdefault(_digest(image), number) == number

    def _remember(self, normals: Tensor, device: torch.device | str) -> None:
        """Remember features of the known normals, in the order of the files; of too many, from all over their list."""
        self.memory = Memory(normals.shape[1:], device)
        chosen = torch.linspace(0, len(normals) - 1, min(len(normals), REMEMBERED)).long()
        for part in torch.split(normals[chosen], AT_ONCE):
            self.memory.add(part.to(device))
        rows = chosen.tolist()
        others = sorted(set(range(len(normals))).difference(rows))  # their numbers are those of no row
        digests = list(self.known)
        self.known = {digests[normal]: number for number, normal in enumerate([*rows, *others])}

    def _standardised(self, image: Tensor, values: Tensor) -> Tensor:
        """Return the distance of maps, [B, 1, *S], from the mean of the normals in their deviations at every place."""
        assert self.mean is not None
        assert self.squares is not None
        mean, squares, count = self.mean, self.squares, self.count
        if mean.shape != values.shape[1:]:
            raise UserError(
                f"score.standardise=place: places were measured on maps of {list(mean.shape[1:])} pixels, this one has "
                f"{list(values.shape[2:])}"
            )
        values64 = values.cpu().double()
        if not self.known or count <= 2:
            return _distance(values64, mean, squares, count).to(values)
        distances = [
            _distance(value, *(_without(value, mean, squares, count) if own in self.known else (mean, squares, count)))
            for own, value in zip(map(_digest, image), values64, strict=True)
        ]
        return torch.stack(distances).to(values)

    def _pooled(self, shown: Tensor) -> Tensor:
        flat = shown.flatten(1)
        if self.rule.pool == "mean":
            return flat.mean(1)
        count = 1 if self.rule.pool == "max" else max(1, round(self.rule.top * flat.shape[1]))
        return flat.topk(count, 1).values.mean(1)


_SIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "both": lambda values: values.abs(),
    "bright": lambda values: values.clamp(min=0),
    "dark": lambda values: (-values).clamp(min=0),
}


def _distance(values: Tensor, mean: Tensor, squares: Tensor, count: int) -> Tensor:
    """Return the distance of maps [..., 1, *S] from the mean of so many normals in their deviations."""
    deviation = (squares / (count - 1)).clamp(min=0).sqrt()
    # where nothing ever varies, such as black background, a trace would count as infinitely unusual
    floor = deviation.mean() / 2 + 1e-6
    return (values - mean) / (deviation.square() + floor.square()).sqrt()


def _deviation(known: Tensor, held_out: Tensor) -> Tensor:
    """Return the standard deviation of the terms of new normals, [2].

    A few held-out normals say well how large a term is, and badly how much it varies; those a detector was trained on
    are many, and their map is too small, in mean and deviation alike. So it is the mean of the held-out ones times the
    relative deviation of both groups.

    Args:
        known: terms of normals that trained, [n, 2].
        held_out: terms of others, [m, 2]; if there are none, the mean is that of the known ones.
    """
    level = (held_out if len(held_out) else known).mean(0).clamp_min(1e-6)
    deviation = torch.empty(2)
    for term in range(2):
        groups = [group[:, term] for group in (known, held_out) if len(group)]
        relative = [group / group.mean() for group in groups if group.mean() > 1e-3 * level[term]]
        squares = sum(float((group - 1).square().sum()) for group in relative)
        spread = (squares / max(1, sum(len(group) - 1 for group in relative))) ** 0.5
        # a handful of normals can be alike by chance, and a term must not outweigh the other for that
        deviation[term] = level[term] * max(spread, LEAST_DEVIATION)
    return deviation


def _without(value: Tensor, mean: Tensor, squares: Tensor, count: int) -> tuple[Tensor, Tensor, int]:
    """Return mean, squares and count of the normals but one."""
    rest = mean + (mean - value) / (count - 1)
    return rest, (squares - (value - mean) * (value - rest)).clamp(min=0), count - 1


def _digest(image: Tensor) -> str:
    """Return a digest of an image's grey values to 8 bits."""
    levels = image.detach().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu().contiguous()
    return hashlib.sha256(repr(tuple(levels.shape)).encode() + levels.numpy().tobytes()).hexdigest()[:16]
