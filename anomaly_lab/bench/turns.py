"""Contenders that are timed in turn (A B C A B C …), so that a change of load hits all of them."""

import time
from collections.abc import Callable, Mapping

Times = dict[str, list[float]]


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Time the contenders in turn, in seconds; the first round is a warm-up and not recorded.

    Examples:
        >>> {name: len(seconds) for name, seconds in interleaved({"a": list, "b": dict}, rounds=2).items()}
        {'a': 2, 'b': 2}
    """
    times: Times = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if round_number:
                times[name].append(time.perf_counter() - start)
    return times
