"""A training in rounds, for contenders that take turns: so many steps when told, then it waits.

Only the standard library: a peer's environment has none of the project's packages. A contender says hello with one
line of JSON, its facts. Each line of its input, a number n, it answers by what n steps took; the input's end is its.
"""

import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

BATCH = (64, 3, 64, 64)  # images, channels, height, width


class Pace:
    """Counts the steps of this process and waits where a round is over.

    Args:
        facts: of the hello.
    """

    def __init__(self, **facts: Any) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no answer
        self._next: dict[str, Any] = facts
        self._left = 0
        self._began = self._inside = (0.0, 0.0)

    def keep(self, training_step: Callable[..., Any]) -> Callable[..., Any]:
        """The same step, which begins when it is its turn. The hello is said when the first one is called."""

        @functools.wraps(training_step)
        def step(*arguments: Any, **named: Any) -> Any:
            if not self._left:
                self._wait()
            before = _clocks()
            outcome = training_step(*arguments, **named)
            self._inside = _plus(self._inside, _minus(_clocks(), before))
            self._left -= 1
            if not self._left:
                self._next = {"step": self._inside}
            return outcome

        return step

    def _wait(self) -> None:
        if "step" in self._next:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            self._next |= {"training": _minus(_clocks(), self._began), "peak_gb": peak}
        print(json.dumps(self._next), file=self._answers, flush=True)
        order = sys.stdin.readline()
        if not order:
            sys.exit()
        self._left, self._inside, self._began = int(order), (0.0, 0.0), _clocks()


def _clocks() -> tuple[float, float]:
    """Seconds of the wall's clock, and of processors in this process."""
    return time.perf_counter(), time.process_time()


def _plus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] + b[0], a[1] + b[1]


def _minus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] - b[0], a[1] - b[1]
