"""An edge overshoots, what is flat stays."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.sharpening import Sharpening
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_an_edge_overshoots() -> None:
    image = torch.zeros(1, 32, 32)
    image[..., 16:] = 0.5
    lesion, _ = Sharpening().draw(site(image))
    assert lesion.amax() > 0.6
    assert lesion.amin() < -0.1
    assert torch.allclose(lesion[..., :4], image[..., :4], atol=1e-5)
