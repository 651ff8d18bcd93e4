"""A Gaussian of a pretrained network's features at each place, as PaDiM has it (Defard et al. 2020)."""

from torch import Tensor

from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.places import _PlaceBaseline
from anomaly_lab.networks.places import PlaceGaussian

REGULARISATION = 0.01  # added to the variances, in shares of their mean


class GaussianOfPlaces(_PlaceBaseline):
    """Mahalanobis distance to the normals' features at the same place, mean of the farthest twentieth of the places.

    Examples:
        >>> GaussianOfPlaces.reason_against((64, 64, 64), Facts()).strip()  # there are no features of volumes
        ''
    """

    title, noun = "Features, Gaussian at each place", "per-place Gaussian"
    rule = "ImageNet features at each place, Mahalanobis distance to the normals there; mean of the farthest 5 %"

    places: PlaceGaussian

    def description(self, num_features: int, grid: tuple[int, int], count: int) -> PlaceGaussian:
        return PlaceGaussian(num_features, grid, REGULARISATION)

    def fit(self, normals: Tensor, facts: Facts) -> None:
        super().fit(normals, facts)
        self.places.learn()
