"""Choose a rule for the score by lesions planted on validation normals: no test case is looked at, and no label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from anomaly_lab.evaluation.map_score import MapScore
from anomaly_lab.evaluation.scoring import Score
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.lesions.lesion import Lesion
from anomaly_lab.lesions.planting import TUNING, plant
from anomaly_lab.metrics.ranking import auroc
from anomaly_lab.types import Batch, Prediction, UserError

BATCH = 64  # images that are scored at a time
RULES = {  # a first look at a detector that reconstructs
    "own": ScoreRule(),
    "mean": ScoreRule("map", pool="mean"),
    "smooth": ScoreRule("map", smooth=2.0),
    "smooth, by place": ScoreRule("map", smooth=2.0, standardise="place"),
    "bright": ScoreRule("map", smooth=2.0, sign="bright"),
    "bright, by place": ScoreRule("map", smooth=2.0, sign="bright", standardise="place"),
    "dark": ScoreRule("map", smooth=2.0, sign="dark"),
    "dark, by place": ScoreRule("map", smooth=2.0, sign="dark", standardise="place"),
}


class Planting(NamedTuple):
    """What is planted on a run's validation normals.

    Attributes:
        seeds: every kind is planted with each of them.
        kinds: of lesions; those of HELD_BACK should be planted once only, after a choice.
        at_most: number of normals, drawn by the run's seed; None for all.
    """

    seeds: Sequence[int] = range(5)
    kinds: Sequence[Lesion] = TUNING
    at_most: int | None = None


class Trial(NamedTuple):
    """The lesions by which rules are compared.

    Attributes:
        normals: validation normals, [B, C, *S] in [-1, 1].
        seeds: of the planting.
        kinds: of lesions; those of HELD_BACK should be planted once only, after the choice.
    """

    normals: Tensor
    seeds: Sequence[int] = range(5)
    kinds: Sequence[Lesion] = TUNING


class Ranked(NamedTuple):
    """How well a rule tells normals with planted lesions from the same normals without.

    Attributes:
        name: of the rule.
        auroc: mean over the seeds.
        deviation: standard deviation over the seeds; it says nothing of other normals, of which there are as few.
        kinds: mean AUROC for each kind of lesion.
        lift: by how much a lesion raises the score of its normal on average, in standard deviations of the normals'
            scores; NaN if these are all equal. It still tells rules apart whose AUROC is 1.
    """

    name: str
    auroc: float
    deviation: float
    kinds: dict[str, float]
    lift: float = float("nan")


def rank(rules: Mapping[str, ScoreRule], score: Score, trial: Trial, measured: Iterable[Tensor] = ()) -> list[Ranked]:
    """Rank rules by the AUROC of validation normals with planted lesions against the same normals without.

    Each kind is planted on every normal with every seed. All rules see the same lesions, so their differences are
    paired.

    Args:
        rules: the rules to compare, by name; one whose source is "detector" is the detector's own score.
        score: the detector's own `score`.
        trial: normals and what is planted on them.
        measured: normals by which places are standardised, in batches; whatever a rule's `normals`, they should be
            others than those of the trial, for what is planted on a normal is not to be judged by itself.

    Returns:
        The rules, best first.

    Raises:
        UserError: there are no normals, or nothing can be planted on them.

    Examples:
        >>> import torch
        >>> def brightness(batch: Batch) -> Prediction:
        ...     return Prediction(batch["image"].mean((1, 2, 3)), reconstruction=torch.zeros_like(batch["image"]))
        >>> normals = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
        >>> ranked = rank({"own": ScoreRule(), "max": ScoreRule("map", pool="max")}, brightness, Trial(normals))
        >>> sorted(rule.name for rule in ranked)
        ['max', 'own']
    """
    kept = list(measured) if any(rule.measures for rule in rules.values()) else []
    device = trial.normals.device
    fitted = {
        name: MapScore.fit(rule, score, kept, device, [trial.normals])
        for name, rule in rules.items()
        if rule.source == "map"
    }

    def scores(image: Tensor) -> dict[str, np.ndarray]:
        prediction = score(Batch(image=image))  # the detector predicts once for all rules
        return {name: _rescored(fitted.get(name), image, prediction) for name in rules}

    return found_by(scores, trial)


def found_by(scores: Callable[[Tensor], Mapping[str, np.ndarray]], trial: Trial) -> list[Ranked]:
    """Measure how well scores tell normals with planted lesions from the same normals without.

    Args:
        scores: gives each image of a batch [B, C, *S] a score by every method, [B] by its name.
        trial: normals and what is planted on them; all methods see the same lesions.

    Returns:
        The methods, best first.

    Raises:
        UserError: there are no normals, or nothing can be planted on them.

    Examples:
        >>> normals = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
        >>> found_by(lambda image: {"mean": image.mean((1, 2, 3)).numpy()}, Trial(normals))[0].name
        'mean'
    """
    normals, seeds, kinds = trial
    if not len(normals) or not kinds or not len(seeds):
        raise UserError("rules are compared on validation normals with planted lesions, and there are none")
    plain = _in_parts(scores, normals)
    if without := [name for name, values in plain.items() if not np.isfinite(values).all()]:
        raise UserError(f"{without[0]}: its scores of normals are no finite numbers, and rank nothing")
    found: dict[str, dict[str, list[float]]] = {name: {} for name in plain}
    lifts: dict[str, list[float]] = {name: [] for name in plain}
    for kind in kinds:
        for seed in seeds:
            lesions = plant(normals, seed, (kind,), donors=normals)
            there = lesions.mask.flatten(1).any(1).cpu().numpy()
            if not there.any():
                continue
            for name, values in _in_parts(scores, lesions.image).items():
                label = np.repeat([0, 1], [len(normals), int(there.sum())])
                found[name].setdefault(kind.name, []).append(auroc(label, np.concatenate([plain[name], values[there]])))
                lifts[name].append(float(np.mean(values[there] - plain[name][there])))
    if not all(found.values()):
        raise UserError("no lesion can be planted on these normals: they are flat; choose other kinds")
    ranked = (
        _ranked(name, by_kind)._replace(lift=_in_deviations(lifts[name], plain[name]))
        for name, by_kind in found.items()
    )
    return sorted(ranked, key=lambda rule: -rule.auroc)


def _in_parts(scores: Callable[[Tensor], Mapping[str, np.ndarray]], image: Tensor) -> dict[str, np.ndarray]:
    parts = [scores(part) for part in torch.split(image, BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _in_deviations(lifts: Sequence[float], plain: np.ndarray) -> float:
    deviation = float(np.std(plain, ddof=1)) if len(plain) > 1 else 0.0
    return float(np.mean(lifts)) / deviation if deviation > 0 else float("nan")


def _rescored(rule: MapScore | None, image: Tensor, prediction: Prediction) -> np.ndarray:
    value = prediction if rule is None else rule(image, prediction)
    return np.asarray(value.anomaly_score.detach().cpu().double())


def _ranked(name: str, by_kind: Mapping[str, Sequence[float]]) -> Ranked:
    repeats = min(map(len, by_kind.values()))
    by_seed = np.mean([values[:repeats] for values in by_kind.values()], axis=0)
    kinds = {kind: float(np.mean(values)) for kind, values in by_kind.items()}
    spread = float(np.std(by_seed, ddof=1)) if repeats > 1 else float("nan")
    return Ranked(name, float(np.mean(list(kinds.values()))), spread, kinds)
