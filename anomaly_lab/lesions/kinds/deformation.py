"""Tissue that is displaced: a swirl or a bulge."""

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site


class Deformation(Lesion):
    """Pixels come from elsewhere within the lesion: turned in one plane, or drawn to the centre or from it."""

    held_back = True

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        bump, sign = site.ball(), 1 if site.random.random() < 0.5 else -1
        strength = sign * (0.3 + 0.7 * min(1.0, site.contrast))  # less would not show
        if site.random.random() < 0.5:
            angle, moved = bump * strength * torch.pi, site.offset.clone()
            row, column = site.offset[-2], site.offset[-1]
            moved[-2] = row * angle.cos() - column * angle.sin()
            moved[-1] = row * angle.sin() + column * angle.cos()
        else:
            moved = site.offset * (1 - 0.9 * strength * bump)
        sides = moved.new_tensor(site.image.shape[1:]).view(-1, *[1] * len(site.centre))
        at = moved + moved.new_tensor(site.centre).view_as(sides)
        where = ((at + 0.5) / sides * 2 - 1).flip(0).movedim(0, -1)  # grid_sample takes x before y
        drawn = F.grid_sample(site.image[None], where[None], padding_mode="reflection", align_corners=False)[0]
        return drawn, (bump > 0).to(site.image)
