"""The nearest normal at each place, in features of a pretrained network (Cohen, Hoshen 2020; Roth et al. 2021)."""

from anomaly_lab.evaluation.baselines.places import _PlaceBaseline
from anomaly_lab.networks.places import PlaceBank

REACH = 1  # places beside the own one at which a normal's feature may lie


class NearestAtPlaces(_PlaceBaseline):
    """Distance to the nearest normal at the same place or one beside, mean of the farthest twentieth of the places.

    Examples:
        >>> from anomaly_lab.evaluation.baselines.baseline import Facts
        >>> NearestAtPlaces.reason_against((64, 64), Facts(features=False))
        'features of a pretrained network were not asked for'
    """

    title, noun = "Features, nearest at each place", "per-place nearest-normal"
    rule = "ImageNet features at each place, distance to the nearest normal within one place; mean of the farthest 5 %"

    def description(self, num_features: int, grid: tuple[int, int], count: int) -> PlaceBank:
        return PlaceBank(count, num_features, grid, REACH)
