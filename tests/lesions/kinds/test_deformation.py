"""Pixels move within the lesion; none is made up."""

import numpy as np
import torch

from anomaly_lab.lesions.kinds.deformation import Deformation
from anomaly_lab.lesions.lesion import Site


def site(image: torch.Tensor, contrast: float = 0.5, seed: int = 0, donor: torch.Tensor | None = None) -> Site:
    other = image if donor is None else donor
    return Site(image, other, (3, 4), (16, 16), 12.0, contrast, np.random.default_rng(seed))


def test_pixels_move_within_the_lesion() -> None:
    image = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    for seed in range(8):
        lesion, covers = Deformation().draw(site(image, seed=seed))
        assert torch.allclose(lesion[:, covers == 0], image[:, covers == 0], atol=1e-4)
        assert (lesion - image)[:, covers > 0].abs().mean() > 0.05
        assert lesion.amin() >= image.amin() - 1e-5
        assert lesion.amax() <= image.amax() + 1e-5


def test_both_a_swirl_and_a_bulge_are_drawn() -> None:
    """A bulge keeps a disc of rings a disc of rings; a swirl keeps the rings themselves."""
    axis = torch.arange(32) - 16.0
    rings = torch.cos((axis[:, None] ** 2 + axis[None] ** 2).sqrt())[None]
    moved = [(Deformation().draw(site(rings, seed=seed))[0] - rings).abs().mean().item() for seed in range(12)]
    assert min(moved) < 0.02 < max(moved)
