"""A region whose detail is gone."""

from torch import Tensor

from anomaly_lab.lesions.lesion import Lesion, Site, smoothed


class Blur(Lesion):
    """A Gaussian blur of one to four pixels, wider for stronger lesions."""

    held_back = True

    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        return smoothed(site.image, 1 + 3 * min(1.0, site.contrast)), site.ball().sqrt()
