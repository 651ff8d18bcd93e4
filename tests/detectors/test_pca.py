"""PCA against scikit-learn, its blur against scipy, and that it is the baseline of the same name."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn import decomposition
from toys import Fit, Toy, smooth

from anomaly_lab.detectors.pca import PCA
from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.pca_32 import PCA32

TOY = Toy({"samples": 256, "components": 4})


@pytest.mark.parametrize("blur", [0.0, 1.5])
def test_scores_and_maps_are_scikit_learns(fit: Fit, blur: float) -> None:
    detector = fit(PCA((32, 32), samples=60, batch_size=20, components=7, blur=blur), smooth(60, seed=1), batch_size=20)
    others = smooth(20, seed=2)

    def blurred(images: torch.Tensor) -> np.ndarray:
        return gaussian_filter(images.double().numpy(), (0, 0, blur, blur))

    seen = detector.subspace.bank.gathered.double()
    x, y = seen.numpy(), blurred(others).reshape(20, -1)
    pca = decomposition.PCA(7, svd_solver="full").fit(x)
    residual = y - pca.inverse_transform(pca.transform(y))
    prediction = detector.score({"image": others})
    torch.testing.assert_close(
        prediction.anomaly_score.double(), torch.from_numpy((residual**2).mean(1)), rtol=1e-3, atol=1e-8
    )
    expected = torch.from_numpy(np.abs(residual)).view(20, 1, 32, 32)
    torch.testing.assert_close(prediction.anomaly_map.double(), expected, rtol=0, atol=1e-5)


def test_it_gathers_blurred_images(fit: Fit) -> None:
    images = smooth(4, seed=1)
    detector = fit(PCA((32, 32), samples=4, batch_size=4, blur=2.0), images)
    row = detector.subspace.bank.gathered[0].view(32, 32)
    expected = [gaussian_filter(image[0].double().numpy(), 2.0) for image in images]
    assert min(np.abs(each - row.numpy()).max() for each in expected) < 1e-6


def test_the_baseline_has_the_same_scores(fit: Fit) -> None:
    detector = fit(PCA((32, 32), samples=50, batch_size=50), smooth(50, seed=1), batch_size=50)
    baseline, others = PCA32(), smooth(9, seed=2)
    baseline.fit(detector.subspace.bank.gathered.view(-1, 1, 32, 32), Facts())
    expected = torch.tensor([baseline.score(image) for image in others])
    torch.testing.assert_close(detector.score({"image": others}).anomaly_score, expected, rtol=1e-3, atol=1e-8)


def test_volumes_and_fewer_images_than_components() -> None:
    detector = PCA((4, 5, 6), in_channels=3, samples=3, batch_size=3)
    detector.subspace.bank.gather(torch.rand(3, 360))
    detector.learn()
    assert int(detector.subspace.axes.any(1).sum()) == 2
    assert detector.score({"image": torch.rand(2, 3, 4, 5, 6)}).anomaly_map.shape == (2, 1, 4, 5, 6)
