"""A line: much longer than wide."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.streak import Streak
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_is_a_line() -> None:
    lesion, covers = Streak().draw(site(torch.zeros(1, 32, 32)))
    places = (covers > 0.5).nonzero().float()
    spread = torch.linalg.svdvals(places - places.mean(0)) / len(places) ** 0.5
    assert spread[0] > 2.5 * spread[1]
    assert lesion.abs().unique().tolist() == [0.5]
