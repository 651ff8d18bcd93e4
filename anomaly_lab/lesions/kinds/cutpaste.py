"""Tissue from another place, pasted with a sharp edge (Li et al. 2021, CutPaste)."""

import torch
from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site


class CutPaste(Lesion):
    """A rectangle of the same image or of another normal; its sides are .4 to 1 of the diameter."""

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        shift = tuple(at - start for at, start in zip(site.centre, site.source, strict=True))
        pasted = torch.roll(site.donor, shift, tuple(range(1, site.donor.ndim)))
        sides = torch.from_numpy(site.random.uniform(0.4, 1, len(shift))).to(site.offset) * site.diameter / 2
        inside = site.offset.abs() <= sides.clamp(min=1).view(-1, *[1] * len(shift))
        return pasted, inside.all(0).to(site.image)
