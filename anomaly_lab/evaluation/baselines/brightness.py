"""Brightness: the mean grey in the middle of an image, one number that must not be all a detector has learnt."""

import torch
from torch import Tensor

from anomaly_lab.evaluation.baselines.baseline import Baseline, Facts


class Brightness(Baseline):
    """Mean grey of the middle half of each side, in the direction that the data set declares, else both ways.

    The direction is knowledge of the field, such as that fresh blood is bright in CT, and no result of these labels.
    Without one, the score is the distance from the median of the training normals.

    Examples:
        >>> baseline = Brightness()
        >>> baseline.fit(torch.zeros(3, 1, 4, 4), Facts(brightness="dark"))
        >>> baseline.score(torch.full((1, 4, 4), -0.5))
        0.5
    """

    title, noun = "Brightness of the middle", "brightness"
    rule = "mean grey of the middle half of each side, in the direction that the data set declares, else both ways"

    def fit(self, normals: Tensor, facts: Facts) -> None:
        self.direction = facts.brightness
        self.median = torch.stack([_middle(image) for image in normals]).median()
        ways = {"bright": "bright is anomalous", "dark": "dark is anomalous", None: "both ways, no direction declared"}
        self.note = ways[self.direction]

    def score(self, image: Tensor) -> float:
        grey = _middle(image)
        if self.direction is None:
            return float((grey - self.median).abs())
        return float(grey if self.direction == "bright" else -grey)


def _middle(image: Tensor) -> Tensor:
    """Return the mean of the middle half of each side of an image [C, *S], float64."""
    for axis, side in enumerate(image.shape[1:], 1):
        image = image.narrow(axis, side // 4, max(1, side - 2 * (side // 4)))
    return image.double().mean()
