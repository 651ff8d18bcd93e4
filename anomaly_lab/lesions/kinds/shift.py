"""A region of another brightness, wide and without an edge."""

from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site


class Shift(Lesion):
    """Contrast and grey of a region change together: detail is paler or stronger besides a shift."""

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        gain = 1 + site.random.uniform(-0.5, 0.5) * site.contrast
        return (site.image + 1) * gain - 1 + site.signed_contrast() / 2, site.ball().sqrt()
