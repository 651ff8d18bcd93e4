"""What is at the source comes to the centre."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.cutpaste import CutPaste
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_the_source_comes_to_the_centre() -> None:
    donor = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    lesion, covers = CutPaste().draw(site(torch.zeros(1, 32, 32), donor=donor))
    assert lesion[0, 16, 16] == donor[0, 3, 4]
    assert lesion[0, 17, 15] == donor[0, 4, 3]
    assert {*covers.unique().tolist()} == {0.0, 1.0}
    rows, columns = covers.any(1).sum(), covers.any(0).sum()
    assert rows * columns == covers.sum()  # a rectangle
