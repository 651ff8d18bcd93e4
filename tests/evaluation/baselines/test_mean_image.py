"""The mean image by its definition."""

import torch

from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.mean_image import MeanImage


def test_score_and_map_by_hand():
    train, image = torch.rand(20, 3, 6, 7), torch.rand(3, 6, 7)
    baseline = MeanImage()
    baseline.fit(train, Facts())
    residual = image.double() - train.double().mean(0)
    assert abs(baseline.score(image) - residual.square().mean().item()) < 1e-12
    torch.testing.assert_close(baseline.map(image), residual.abs().mean(0).float())
