"""A long ellipse of one grey with a sharp edge."""

import torch
from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site


class Ellipse(Lesion):
    """One grey, brighter or darker than the mean below; the short axis is .3 to .7 of the long one."""

    held_back = True

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        dims = len(site.offset)
        inside = site.ellipsoid((1.0, *site.random.uniform(0.3, 0.7, dims - 1).tolist()))
        below = (site.image * inside).flatten(1).sum(1) / inside.sum().clamp(min=1e-6)
        grey = (below + site.signed_contrast()).view(-1, *[1] * dims)
        return grey.expand_as(site.image) + torch.zeros_like(site.image), inside
