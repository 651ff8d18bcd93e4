"""Contenders take turns, and the warm-up is not timed."""

from anomaly_lab.bench.turns import interleaved


def test_contenders_take_turns_and_the_first_round_is_not_recorded() -> None:
    called: list[str] = []
    times = interleaved({name: lambda name=name: called.append(name) for name in "abc"}, rounds=3)
    assert "".join(called) == "abc" * 4
    assert {name: len(seconds) for name, seconds in times.items()} == dict.fromkeys("abc", 3)
    assert all(second >= 0 for seconds in times.values() for second in seconds)
