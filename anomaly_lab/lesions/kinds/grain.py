"""A region with grain of another scale."""

from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site, smoothed


class Grain(Lesion):
    """Noise is added whose grains are of one pixel up to an eighth of the lesion."""

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        grains = smoothed(site.noise(), site.random.uniform(0, max(0.5, site.diameter / 8)))
        return site.image + site.contrast * grains / grains.std().clamp(min=1e-6), site.ball().sqrt()
