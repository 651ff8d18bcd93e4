"""A region that is sharper than the rest."""

from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site, smoothed


class Sharpening(Lesion):
    """Unsharp masking: what a blur would take away is added, the more of it the higher the contrast."""

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        detail = site.image - smoothed(site.image, site.random.uniform(0.7, 2.0))
        return site.image + 4 * site.contrast * detail, site.ball().sqrt()
