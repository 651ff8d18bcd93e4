"""What the report says of the score that a run has: the detector's own, or one made from its map."""

from __future__ import annotations

from typing import Any

import yaml

SIDES = {
    "bright": "what is brighter than the reconstruction counts",
    "dark": "what is darker than the reconstruction counts",
    "both": "both signs count",
}
OWN = "The detector’s raw anomaly score"


def score_in_words(config: str) -> str:
    """Say what the score of a run is made of, from the section `score` of its configuration.

    Args:
        config: text of config.yaml; what cannot be read is taken for the default, the detector's own score.

    Examples:
        >>> score_in_words("score: {source: detector}")
        'The detector’s raw anomaly score'
        >>> rule = "{source: map, smooth: 2.0, sign: bright, standardise: place, normals: training, pool: max}"
        >>> for part in score_in_words(f"score: {rule}").split("; "):
        ...     print(part)
        What the anomaly map shows (score.from=map), not the detector’s own score
        the difference of image and reconstruction
        what is brighter than the reconstruction counts
        smoothed by a Gaussian with a standard deviation of 2 pixels of a picture with sides of 64
        at every place less the mean of the training normals and divided by their standard deviation there
        the highest value of the map is the score
    """
    rule = _section(config)
    if rule.get("source") != "map":
        return OWN
    sign = str(rule.get("sign", "both"))
    shown = "the difference of image and reconstruction"
    shown += "" if sign in ("bright", "dark") else ", or the detector’s own map where it does not reconstruct"
    parts = ["What the anomaly map shows (score.from=map), not the detector’s own score", shown]
    parts.append(SIDES.get(sign, sign))
    if smooth := rule.get("smooth"):
        sides = "of a picture with sides of 64"
        parts.append(f"smoothed by a Gaussian with a standard deviation of {smooth:g} pixels {sides}")
    else:
        parts.append("not smoothed")
    if rule.get("standardise") == "place":
        normals = "training" if rule.get("normals", "training") == "training" else "other validation"
        parts.append(
            f"at every place less the mean of the {normals} normals and divided by their standard deviation there"
        )
    pooled = {
        "mean": "the mean of the map",
        "max": "the highest value of the map",
        "top": f"the mean of the highest {_percent(rule.get('top', 0.01))} of the map’s values",
    }
    term = pooled.get(str(rule.get("pool", "top")), rule.get("pool"))
    if rule.get("features"):
        parts.append(f"{term} is one term of the score")
        share = _percent(rule.get("share", 0.05))
        parts.append(
            "the other is how far features of EfficientNet-Lite0 lie from those of all normals at the same place or "
            f"one beside, the mean of the farthest {share} of the places; both in deviations of normals"
        )
    else:
        parts.append(f"{term} is the score")
    return "; ".join(parts)


def _section(config: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(config)["score"]
        numbers = [found.get(key, 0) for key in ("smooth", "top", "share")]
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return dict(found) if all(isinstance(number, int | float) for number in numbers) else {}


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
