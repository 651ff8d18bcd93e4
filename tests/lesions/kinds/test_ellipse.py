"""One grey, and longer than wide."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.ellipse import Ellipse
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_is_of_one_grey_and_long() -> None:
    image = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))
    lesion, covers = Ellipse().draw(site(image))
    assert [channel.unique().numel() for channel in lesion] == [1, 1]
    assert lesion.shape == image.shape
    assert 0.25 * np.pi * 36 < covers.sum().item() < 0.8 * np.pi * 36
