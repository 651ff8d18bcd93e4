"""The noise has the contrast asked for."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.grain import Grain
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_has_the_contrast_asked_for() -> None:
    image = torch.full((1, 32, 32), 0.2)
    lesion, covers = Grain().draw(site(image, contrast=0.3))
    assert torch.isclose((lesion - image).std(), torch.tensor(0.3), atol=1e-5)
    assert covers[16, 16] == 1
