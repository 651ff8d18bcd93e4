"""A line, brighter or darker: a fracture, a wire, a scratch."""

import torch
from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site


class Streak(Lesion):
    """A straight line of random direction, as long as the diameter; one to three pixels wide on a side of 64."""

    held_back = True

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        along, *across = site.rotated()
        half = site.random.uniform(0.5, 1.5) * max(1.0, min(site.image.shape[1:]) / 64)
        beside = torch.stack(across).square().sum(0).sqrt()
        beyond = (along.abs() - max(site.diameter / 2, 2.0)).clamp(min=0)
        inside = (half + 0.5 - (beside.square() + beyond.square()).sqrt()).clamp(0, 1)
        return site.image + site.signed_contrast(), inside
