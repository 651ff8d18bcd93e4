"""Brightness of a region, without an edge."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.shift import Shift
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_black_stays_black_under_the_gain() -> None:
    image = torch.full((1, 32, 32), -1.0)
    lesion, covers = Shift().draw(site(image))
    assert (lesion + 1).abs().allclose(torch.tensor(0.25))  # half the contrast, and no gain on black
    assert covers[16, 16] == 1
    assert covers[16, 22] < 0.05
