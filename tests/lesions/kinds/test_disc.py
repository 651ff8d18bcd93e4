"""By hand."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.disc import Disc
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_is_a_disc() -> None:
    lesion, covers = Disc().draw(site(torch.zeros(1, 32, 32)))
    assert lesion.abs().unique().tolist() == [0.5]
    assert abs(covers.sum().item() - np.pi * 36) < 4
    assert covers[16, 21] == 1
    assert covers[16, 23] == 0
