"""A disc with a sharp edge, brighter or darker; a ball in a volume."""

from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site


class Disc(Lesion):
    """What lies below shines through: its grey is shifted, not replaced."""

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        return site.image + site.signed_contrast(), site.ellipsoid((1.0,) * len(site.offset))
