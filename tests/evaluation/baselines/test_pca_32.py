"""PCA-32 against scikit-learn."""

import pytest
import torch
from sklearn.decomposition import PCA

from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.mean_image import MeanImage
from anomaly_lab.evaluation.baselines.pca_32 import PCA32


def pictures(n, seed):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(60, 144, generator=torch.Generator().manual_seed(99))
    return (torch.randn(n, 60, generator=generator) * 0.9 ** torch.arange(60) @ basis / 20).reshape(n, 1, 12, 12)


def fitted(kind, train):
    baseline = kind()
    baseline.fit(train, Facts())
    return baseline


@pytest.mark.parametrize("n", [8, 33, 100, 300])
def test_equals_scikit_learn(n):
    train, others = pictures(n, 0), pictures(20, 1)
    baseline = fitted(PCA32, train)
    x, y = train.flatten(1).double().numpy(), others.flatten(1).double().numpy()
    pca = PCA(min(32, n - 1), svd_solver="full").fit(x)
    error = ((y - pca.inverse_transform(pca.transform(y))) ** 2).mean(1)
    assert [baseline.score(image) for image in others] == pytest.approx(error.tolist(), rel=1e-6)


def test_training_images_that_hardly_vary():
    train, others = pictures(1, 0).repeat(5, 1, 1, 1), pictures(4, 1)
    assert [fitted(PCA32, train).score(x) for x in others] == [fitted(MeanImage, train).score(x) for x in others]
    assert fitted(PCA32, train[:1]).score(train[0]) == 0


def test_the_map_is_the_residual_that_the_score_is_made_of():
    baseline, image = fitted(PCA32, pictures(40, 0)), pictures(1, 1)[0]
    assert baseline.map(image).double().square().mean().item() == pytest.approx(baseline.score(image), rel=1e-5)
