"""Brightness: its direction is declared by the data set and nowhere learnt."""

import pytest
import torch

from anomaly_lab.data import datasets
from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.brightness import Brightness


@pytest.mark.parametrize(
    ("direction", "expected"), [("bright", [0.2, 0.6]), ("dark", [-0.2, -0.6]), (None, [0.1, 0.5])]
)
def test_scores_by_hand(direction, expected):
    baseline = Brightness()
    baseline.fit(torch.tensor([0.0, 0.1, 0.9]).view(3, 1, 1, 1).expand(3, 1, 4, 4), Facts(brightness=direction))
    image = torch.full((1, 8, 8), -1.0)
    scores = []
    for grey in (0.2, 0.6):
        image[:, 2:6, 2:6] = grey  # the border has no say
        scores.append(baseline.score(image))
    assert scores == pytest.approx(expected)


def test_data_sets_declare_what_the_field_knows():
    assert datasets.HeadCT.brightness == "bright"
    assert datasets.Folder.brightness is None  # nobody knows what is in it
