import pytest
import torch

from anomaly_lab.losses.distillation import directions, values


@pytest.mark.parametrize(
    ("student", "direction", "value"),
    [
        ([3.0, 4.0], 0.0, 0.0),
        ([6.0, 8.0], 0.0, 12.5),  # twice as long: (9 + 16) / 2
        ([-3.0, -4.0], 2.0, 50.0),
        ([-4.0, 3.0], 1.0, 25.0),  # (49 + 1) / 2
        ([5.0, 0.0], 0.4, 10.0),  # cosine 3/5
        ([0.0, 0.0], 1.0, 12.5),  # no direction: as good as a right angle
    ],
)
def test_against_a_teacher_of_3_and_4(student: list[float], direction: float, value: float) -> None:
    s, t = torch.tensor(student).view(1, 2, 1, 1), torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert directions([s], [t]).tolist() == pytest.approx([direction], abs=1e-6)
    assert values([s], [t]).tolist() == pytest.approx([value])


def test_a_sum_over_layers_for_each_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2, 4, 4), (3, 5, 2, 2)]
    s, t = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    for distance in (directions, values):
        found = distance(s, t)
        assert found.shape == (3,)
        torch.testing.assert_close(found, distance(s[:1], t[:1]) + distance(s[1:], t[1:]))
        torch.testing.assert_close(found[1:2], distance([x[1:2] for x in s], [x[1:2] for x in t]))


def test_directions_know_no_length() -> None:
    s, t = torch.rand(4, 3, 5, 5), torch.rand(4, 3, 5, 5)
    torch.testing.assert_close(directions([7 * s], [0.1 * t]), directions([s], [t]))


def test_half_precision_is_left_at_the_door() -> None:
    s, t = torch.full((1, 4), 300.0, dtype=torch.float16), torch.zeros(1, 4, dtype=torch.float16)
    assert values([s], [t]).item() == 90_000  # would be infinite
    assert directions([s], [s]).dtype == torch.float32
