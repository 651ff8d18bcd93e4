"""Run a training loop in timed turns on request, so that contenders in several processes can be interleaved.

Protocol, over standard input and output:

1. When its first training step is due, the contender prints one line of JSON: its facts (version, threads, weights).
2. For each line on its standard input, a number n, it trains n steps and answers with one line of JSON: the times
   of these steps and its peak memory.
3. It exits when its standard input is closed.

Only the standard library is used: a peer's environment has none of this project's packages.
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
    """Runs the training steps of this process in turns, and waits between two turns.

    From its creation on, file descriptor 1 carries the protocol only: whatever libraries print goes to standard error.

    Args:
        facts: content of the first line, for example version, torch, threads and weights.

    Examples:
        In a contender's script::

            pace = Pace(version="1.0", threads=1)
            model.training_step = pace.keep(model.training_step)
            trainer.fit(model)  # each line n on standard input now trains n steps
    """

    def __init__(self, **facts: Any) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # text that libraries print must not mix with the answers
        self._next: dict[str, Any] = facts
        self._left = 0
        self._began = self._inside = (0.0, 0.0)

    def keep(self, training_step: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a training step so that it waits for its turn; the first call prints the facts."""

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
        request = sys.stdin.readline()
        if not request:
            sys.exit()
        self._left, self._inside, self._began = int(request), (0.0, 0.0), _clocks()


def _clocks() -> tuple[float, float]:
    """Return wall-clock seconds and CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


def _plus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] + b[0], a[1] + b[1]


def _minus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] - b[0], a[1] - b[1]
