"""What a threshold is for, said beforehand: by name, or as the share of normals that it should leave alone.

A test that *rules in* is specific: an alarm is believed. A test that *rules out* is sensitive: silence is believed
(Sackett et al. 2000, Evidence-Based Medicine, "SpPIn" and "SnNOut"). Screening lies between: a second look at some
normals is affordable, a miss is not. The numbers are this framework's conventions, and none of them depends on results.
"""

from __future__ import annotations

from typing import Any

PURPOSES = {  # share of normals that should score at or below the threshold
    "rule_in": 0.95,  # an alarm is acted upon: 1 false alarm in 20 normals
    "screening": 0.8,  # few missed; every alarm gets a second look: 1 false alarm in 5 normals
    "rule_out": 0.5,  # what is silent is not looked at: only the less suspicious half of the normals is
}


class Purpose:
    """Constraint: one of the named purposes, or a quantile in (0, 1).

    Examples:
        >>> [Purpose().admits(value) for value in ("screening", 0.9, "screning", 1, True)]
        [True, True, False, False, False]
        >>> str(Purpose())
        'rule_in, screening, rule_out, or a number in (0, 1)'
    """

    def admits(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in PURPOSES
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1

    def __str__(self) -> str:
        return f"{', '.join(PURPOSES)}, or a number in (0, 1)"


def quantile_of(purpose: str | float) -> float:
    """Return the share of normals that should score at or below the threshold.

    Examples:
        >>> quantile_of("screening"), quantile_of(0.99)
        (0.8, 0.99)
    """
    return PURPOSES[purpose] if isinstance(purpose, str) else float(purpose)
