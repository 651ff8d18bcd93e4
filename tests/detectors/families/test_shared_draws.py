"""Processes see together what one sees: draws of a batch's rows, and no others."""

import pytest
import torch
from torch import nn

from anomaly_lab.detectors.families.shared_draws import SharedDraws

IMAGE = torch.arange(4 * 3 * 5 * 5.0).reshape(4, 3, 5, 5)
DRAWS = {
    "rand": lambda x: torch.rand(len(x), 1, 1, 1),
    "randn": lambda x: torch.randn((len(x), 7)),
    "randn of a type": lambda x: torch.randn(len(x), 7, dtype=torch.float64),
    "randn_like": torch.randn_like,
    "rand_like": torch.rand_like,
    "randint": lambda x: torch.randint(10, (len(x),)),
    "randint between": lambda x: torch.randint(5, 10, size=(len(x), 2)),
    "dropout": nn.Dropout(0.3),
    "dropout of channels last": lambda x: nn.Dropout(0.3)(x.to(memory_format=torch.channels_last)),
    "noise of channels last": lambda x: torch.randn_like(x.to(memory_format=torch.channels_last)),
    "two draws": lambda x: torch.rand(len(x), 2) + torch.randn(len(x), 2),
}


def drawn(draw, world_size: int) -> torch.Tensor:
    parts = []
    for rank, share in enumerate(IMAGE.chunk(world_size)):
        torch.manual_seed(3)
        with SharedDraws(rank, world_size, {len(share)}):
            parts.append(draw(share))
    return torch.cat(parts)


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("name", DRAWS)
def test_the_parts_are_those_of_the_whole(name: str, world_size: int) -> None:
    torch.manual_seed(3)
    whole = DRAWS[name](IMAGE)
    assert torch.equal(drawn(DRAWS[name], world_size), whole)


def test_in_place_dropout_and_evaluation() -> None:
    torch.manual_seed(3)
    whole = nn.functional.dropout(IMAGE.clone(), 0.5, inplace=True)
    assert torch.equal(drawn(lambda x: nn.functional.dropout(x.clone(), 0.5, inplace=True), 2), whole)
    assert torch.equal(drawn(nn.Dropout(0.5).eval(), 2), IMAGE)


def test_other_draws_are_the_same_everywhere_and_own_generators_are_left_alone() -> None:
    for draw in (lambda _: torch.rand(7), lambda x: torch.rand(len(x), generator=torch.Generator().manual_seed(1))):
        first, second = drawn(draw, 2).chunk(2)
        assert torch.equal(first, second)


def test_parts_of_a_share_draw_for_their_parts() -> None:
    with SharedDraws(1, 2, {2, 1}):
        assert torch.rand(1, 3).shape == (1, 3)
