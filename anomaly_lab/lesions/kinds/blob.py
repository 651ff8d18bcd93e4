"""A Gaussian blob, brighter or darker, without an edge."""

import torch
from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site


class Blob(Lesion):
    """Grey that fades like a Gaussian; `diameter` is four standard deviations."""

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        falls = torch.exp(-0.5 * site.offset.square().sum(0) / (site.diameter / 4) ** 2)
        return site.image + site.signed_contrast(), falls
