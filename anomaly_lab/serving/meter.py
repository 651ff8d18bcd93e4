"""What a server has done, in the text format of Prometheus; nothing of any upload is in it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds
_PREFIX = "anomaly_lab"


class Meter:
    """Counts answers by path and status, and how long they took.

    Examples:
        >>> meter = Meter()
        >>> meter.note("/score", 200, seconds=0.2)
        >>> 'anomaly_lab_requests_total{path="/score",status="200"} 1' in meter.text({}).splitlines()
        True
    """

    def __init__(self) -> None:
        self._answers = Counter[tuple[str, int]]()
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS) + 1))
        self._seconds: dict[str, float] = defaultdict(float)

    def note(self, path: str, status: int, seconds: float) -> None:
        """Note an answer.

        Args:
            path: of the server, one of a few.
            status: of HTTP; 499 for a client that has gone.
            seconds: from the arrival of the request to the answer, with the time in the queue.
        """
        self._answers[path, status] += 1
        self._buckets[path][bisect_left(BOUNDS, seconds)] += 1
        self._seconds[path] += seconds

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return everything in the text format.

        Args:
            gauges: present values by name, with what they are.
        """
        lines = _head("requests_total", "counter", "Answers by path and status.")
        for (path, status), count in sorted(self._answers.items()):
            lines.append(f'{_PREFIX}_requests_total{{path="{path}",status="{status}"}} {count}')
        lines += _head("request_seconds", "histogram", "Seconds from the arrival of a request to its answer.")
        for path, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*BOUNDS, "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'{_PREFIX}_request_seconds_bucket{{path="{path}",le="{bound}"}} {total}')
            lines.append(f'{_PREFIX}_request_seconds_sum{{path="{path}"}} {self._seconds[path]:.6f}')
            lines.append(f'{_PREFIX}_request_seconds_count{{path="{path}"}} {total}')
        for name, (what, value) in gauges.items():
            lines += [*_head(name, "gauge", what), f"{_PREFIX}_{name} {value:.16g}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP {_PREFIX}_{name} {what}", f"# TYPE {_PREFIX}_{name} {kind}"]
