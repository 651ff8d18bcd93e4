"""Detail goes, brightness stays."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.blur import Blur
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_detail_goes_and_brightness_stays() -> None:
    image = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    weak, strong = (Blur().draw(site(image, contrast))[0] for contrast in (0.1, 1.0))
    assert strong.std() < weak.std() < 0.5 * image.std()
    assert torch.isclose(strong.mean(), image.mean(), atol=0.02)
