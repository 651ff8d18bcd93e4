"""By hand: contrast at the centre, a Gaussian around it."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.blob import Blob
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_falls_like_a_gaussian() -> None:
    lesion, covers = Blob().draw(site(torch.zeros(1, 32, 32)))
    change = (lesion * covers).abs()[0]
    assert change[16, 16] == 0.5
    assert torch.isclose(
        change[16, 19], torch.tensor(0.5 * np.exp(-0.5), dtype=torch.float32), atol=1e-6
    )  # 3 pixels: one deviation


def test_is_bright_or_dark() -> None:
    signs = {float(Blob().draw(site(torch.zeros(1, 32, 32), seed=seed))[0][0, 0, 0]) for seed in range(20)}
    assert signs == {0.5, -0.5}
