"""Arithmetic of a schedule, by hand."""

from anomaly_lab.types import Phase, Schedule

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
