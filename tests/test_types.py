"""Arithmetic of a schedule, by hand, and what ranges of settings admit."""

import math
from dataclasses import dataclass

import pytest

from anomaly_lab.types import Phase, Range, Rate, Schedule, Square, refuse_out_of_range

GAN, ENCODER = Phase("gan", 10, ("generator", "critic"), minibatches=5), Phase("encoder", 4, ("encoder",))
SCHEDULE = Schedule((GAN, ENCODER))


def test_phase_of_an_iteration() -> None:
    assert [SCHEDULE.phase_at(i).name for i in (0, 9, 10, 13, 14, 99)] == ["gan", "gan", *["encoder"] * 4]


def test_span_of_a_phase() -> None:
    assert [SCHEDULE.span(name) for name in ("gan", "encoder", "none")] == [range(10), range(10, 14), range(0)]


def test_minibatches_before_an_iteration() -> None:
    assert [SCHEDULE.minibatches_before(i) for i in (0, 1, 10, 11, 14)] == [0, 5, 50, 51, 54]


def test_epochs_do_not_cross_phases() -> None:
    ends, at = [], 0
    while at < SCHEDULE.iterations:
        at = SCHEDULE.epoch_end(at, 3)
        ends.append(at)
    assert ends == [3, 6, 9, 10, 13, 14]
    assert SCHEDULE.epochs_left(0, 3) == 6
    assert SCHEDULE.epochs_left(9, 3) == 3
    assert SCHEDULE.epochs_left(14, 3) == 0


@pytest.mark.parametrize(("interval", "admitted", "refused"), [
    ("[1, 9]", [1, 9, 5.5], [0, 9.1, -1, math.nan, math.inf, True, "5", None, {}]),
    ("(0, 1)", [0.5, 1e-300], [0, 1, math.nan]),
    ("(0, inf)", [1e300], [math.inf, 0]),
    ("(-inf, inf)", [-1e300, 0], [math.nan, -math.inf]),
])  # fmt: skip
def test_a_range_admits_numbers_of_its_interval_alone(interval, admitted, refused):
    assert all(map(Range(interval).admits, admitted))
    assert not any(map(Range(interval).admits, refused))


def test_a_range_of_several_numbers_asks_for_each_and_for_their_count():
    three = Range("[0, 1]", counts=(3,))
    assert three.admits((0, 1, 0.5))
    assert three.admits(0.5)
    assert not any(map(three.admits, [(0, 1), (0, 1, 2), [0, 1, "a"], []]))
    assert Range("[0, 1]").admits([])
    assert str(three) == "a number in [0, 1], or a list of 3"


def test_a_square_has_equal_sides():
    assert all(map(Square(8).admits, [(8, 8), [64, 64], (2048, 2048)]))
    assert not any(map(Square(8).admits, [(8, 16), (4, 4), (24, 24), (4096, 4096), 8, (8,), (8, 8, 8), (8.0, 8.0)]))
    assert Square(8, power_of_two=False).admits((28, 28))


def test_constraints_are_found_in_unions_and_refuse_all_but_none():
    @dataclass
    class Settings:
        plain: int = -1
        rate: Rate | None = None

    refuse_out_of_range(Settings, {"plain": -1, "rate": None, "other": 3})
    with pytest.raises(ValueError, match=r"^rate=0: takes a number in \(0, 1\]$"):
        refuse_out_of_range(Settings, {"rate": 0})
