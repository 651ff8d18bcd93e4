"""What the two baselines on features share: the same features, computed once."""

import pytest
import torch

from anomaly_lab.evaluation.baselines import places
from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.place_gaussian import GaussianOfPlaces
from anomaly_lab.evaluation.baselines.place_nn import NearestAtPlaces


def test_features_are_computed_once_for_both(monkeypatch):
    features = places.shared_features((16, 16))
    forward, seen = features.network.forward, []
    monkeypatch.setattr(features.network, "forward", lambda image: (seen.append(1), forward(image))[1])
    normals, image = torch.rand(3, 1, 16, 16), torch.rand(1, 16, 16)
    both = GaussianOfPlaces(), NearestAtPlaces()
    for baseline in both:
        baseline.fit(normals, Facts())
    assert len(seen) == 3
    for baseline in both:
        baseline.score(image)
        baseline.map(image)
    assert len(seen) == 4


def test_of_many_normals_some_are_taken_evenly(monkeypatch):
    monkeypatch.setattr(places, "SAMPLED", 3)
    assert places.sampled(9).tolist() == [0, 4, 8]
    assert places.sampled(2).tolist() == [0, 1]
    baseline = NearestAtPlaces()
    baseline.fit(torch.rand(7, 1, 16, 16), Facts())
    assert baseline.note.startswith("3 of 7 training normals, ")


@pytest.mark.parametrize(("size", "facts", "said"), [
    ((64, 64), Facts(), ""), ((8, 64), Facts(), " "), ((16, 16, 16), Facts(), " "),
    ((64, 64), Facts(features=False), "features of a pretrained network were not asked for"),
])  # fmt: skip
def test_where_they_make_sense(size, facts, said):
    assert NearestAtPlaces.reason_against(size, facts) == said
