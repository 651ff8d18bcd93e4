"""The interface: whoever writes a baseline is told what is missing."""

import pytest
import torch

from anomaly_lab.evaluation.baselines.baseline import Baseline, Facts


class Contrast(Baseline):
    title, noun, rule = "Contrast", "contrast", "standard deviation"

    def fit(self, normals, facts):
        self.usual = normals.std()

    def score(self, image):
        return float(image.std() - self.usual)


def test_a_baseline_has_no_map_and_no_note_by_itself():
    baseline = Contrast()
    baseline.fit(torch.zeros(2, 1, 4, 4), Facts())
    assert baseline.score(torch.zeros(1, 4, 4)) == 0
    assert (baseline.map(torch.zeros(1, 4, 4)), baseline.note) == (None, "")
    assert baseline.reason_against((1, 1), Facts()) == ""


def test_an_incomplete_one_cannot_be_made():
    class Unscored(Baseline):
        def fit(self, normals, facts): ...

    with pytest.raises(TypeError, match="score"):
        Unscored()
