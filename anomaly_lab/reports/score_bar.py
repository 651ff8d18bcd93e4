"""Where a score lies among those of the validation normals, as a small drawing for a row of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT = 132, 18
MARGIN = 0.15  # of the scale below the lowest normal, in ranges of the normals
BEYOND = 1.0  # of the scale above the highest normal or the threshold; what is higher is an arrow at the end


class ScoreBar:
    """Draws scores on one scale, which the validation normals and the threshold set.

    Args:
        normals: scores of the validation normals, at least one.
        threshold: of the run, or None.

    Examples:
        >>> bar = ScoreBar([0.1, 0.2, 0.4], threshold=0.5)
        >>> bar.words(0.3), bar.words(2.0)
        ('higher than 2 of 3 normals of the run', 'higher than 3 of 3 normals of the run')
    """

    def __init__(self, normals: Sequence[float], threshold: float | None) -> None:
        self._normals, self._threshold = np.sort(np.asarray(normals, np.float64)), threshold
        low = float(self._normals[0])
        top = max(float(self._normals[-1]), low if threshold is None else threshold)
        span = top - low or 1.0
        self._low, self._high = low - MARGIN * span, top + BEYOND * span

    def words(self, score: float) -> str:
        """Say of a score what the drawing shows."""
        below = int(np.searchsorted(self._normals, score))
        return f"higher than {below} of {len(self._normals)} normals of the run"

    def draw(self, score: float) -> str:
        """Return the drawing as SVG: range and median of the normals, the threshold dashed, the score as a dot.

        A score outside the scale is an arrow at its end.
        """
        low, middle, high = (self._x(float(at)) for at in np.quantile(self._normals, (0, 0.5, 1)))
        y, alarm = HEIGHT / 2, self._threshold is not None and score > self._threshold
        parts = [f'<rect x="{low:.1f}" y="{y - 4}" width="{max(high - low, 1):.1f}" height="8"/>',
                 f'<path class="middle" d="M{middle:.1f} {y - 4}v8"/>']  # fmt: skip
        if self._threshold is not None:
            parts.append(f'<path class="threshold" d="M{self._x(self._threshold):.1f} 0V{HEIGHT}"/>')
        kind = "score alarm" if alarm else "score"
        if score > self._high:
            parts.append(f'<path class="{kind}" d="M{WIDTH - 8} {y - 5}l8 5l-8 5z"/>')
        elif score < self._low:
            parts.append(f'<path class="{kind}" d="M8 {y - 5}l-8 5l8 5z"/>')
        else:
            parts.append(f'<circle class="{kind}" cx="{self._x(score):.1f}" cy="{y}" r="4"/>')
        return (
            f'<svg class="scorebar" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            f'aria-label="{self.words(score)}">{"".join(parts)}</svg>'
        )

    def _x(self, value: float) -> float:
        return 4 + (WIDTH - 8) * (value - self._low) / (self._high - self._low)
