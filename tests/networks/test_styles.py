"""Statistics of normal styles against scikit-learn, and what each half of the bank is measured with."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from torch import Tensor

from anomaly_lab.networks.styles import APART, COMPONENTS, NormalStyles

STYLES, LENGTH = 3, 6


def codes(n: int, seed: int = 0) -> Tensor:
    """Correlated, and wider along some axes than along others."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(STYLES, LENGTH, LENGTH, generator=torch.Generator().manual_seed(99))
    return torch.einsum("nlw,lwv->nlv", torch.randn(n, STYLES, LENGTH, generator=generator), mixing) + 2


def learnt(n: int = 60, axes: int = 4, capacity: int = 60, **over: Tensor) -> NormalStyles:
    styles = NormalStyles(capacity, STYLES, LENGTH, axes, side=4)
    distances = torch.rand(n, APART + STYLES, generator=torch.Generator().manual_seed(1))
    rows = {"codes": codes(n), "distances": distances, "maps": torch.rand(n, 1, 4, 4), "fold": torch.arange(n) % 2}
    rows |= over
    for start in range(0, n, 7):
        styles.gather(**{name: value[start : start + 7] for name, value in rows.items()}, start=start)
    styles.learn()
    return styles


def mahalanobis(train: Tensor, test: Tensor, axes: int) -> np.ndarray:
    """scikit-learn's, averaged over axes and styles."""
    total = np.zeros(len(test))
    for style in range(STYLES):
        rows = train[:, style].double().numpy()
        pca = PCA(axes, svd_solver="full").fit(rows)
        covariance = LedoitWolf(assume_centered=True).fit(pca.transform(rows)).covariance_
        projected = pca.transform(test[:, style].double().numpy())
        total += np.einsum("nk,kj,nj->n", projected, np.linalg.inv(covariance), projected) / axes
    return total / STYLES


def test_distance_to_normal_styles_is_scikit_learns() -> None:
    styles, other = learnt(), codes(9, seed=5) * 1.5
    found = styles.components(other, torch.rand(9, APART + STYLES))[:, COMPONENTS.index("styles")]
    np.testing.assert_allclose(found, mahalanobis(codes(60), other, axes=4), rtol=1e-3)


def test_axes_that_do_not_vary_are_left_out() -> None:
    flat = codes(60)
    flat[:, :, 2:] = 1
    found = learnt(codes=flat, axes=6).components(flat, torch.rand(60, APART + STYLES))[:, COMPONENTS.index("styles")]
    assert found.mean().item() == pytest.approx(1, rel=0.3)  # per axis
    constant = learnt(codes=torch.ones(60, STYLES, LENGTH)).components(flat, torch.rand(60, APART + STYLES))[
        :, COMPONENTS.index("styles")
    ]
    assert not constant.any()


def test_the_other_components_by_hand() -> None:
    distances = torch.rand(60, APART + STYLES)
    styles = learnt(distances=distances)
    *apart, round_trip, _ = styles.components(codes(60), distances).unbind(1)
    assert torch.equal(torch.stack(apart, 1), distances[:, :APART])
    torch.testing.assert_close(round_trip, (distances[:, APART:] / distances[:, APART:].mean(0)).mean(1))
    assert round_trip.mean().item() == pytest.approx(1, rel=1e-5)


def test_deviations_are_those_of_images_the_axes_have_not_seen() -> None:
    """A half whose codes are odd: its distance is large by the axes of the other half, and not by its own."""
    bank, fold = codes(60), torch.arange(60) % 2
    styles = learnt(codes=bank, fold=fold)
    held_out = np.zeros(60)
    for which in (0, 1):
        held_out[fold == which] = mahalanobis(bank[fold != which], bank[fold == which], axes=4)
    assert styles.deviation[COMPONENTS.index("styles")].item() == pytest.approx(held_out.std(), rel=1e-3)
    own = styles.components(bank, torch.rand(60, APART + STYLES))[:, COMPONENTS.index("styles")]
    assert styles.deviation[COMPONENTS.index("styles")] > own.std()


def test_standardised_components_of_normals_have_deviation_one() -> None:
    distances = torch.rand(60, APART + STYLES)
    styles = learnt(distances=distances)
    spread = styles.standardised(styles.components(codes(60), distances)).std(0, correction=0)
    assert spread[:3].tolist() == pytest.approx([1, 1, 1], rel=1e-3)


def test_the_bank_has_an_end_and_one_half_is_enough() -> None:
    maps = torch.rand(60, 1, 4, 4)
    styles = learnt(capacity=20, maps=maps, fold=torch.zeros(60, dtype=torch.long))
    assert styles.count == 20
    torch.testing.assert_close(styles.map, maps[:20].mean(0))
    assert all(value.isfinite().all() for value in styles.state_dict().values())
    expected = mahalanobis(codes(60)[:20], codes(60)[:20], axes=4)
    np.testing.assert_allclose(
        styles.components(codes(60)[:20], torch.rand(20, APART + STYLES))[:, COMPONENTS.index("styles")],
        expected,
        rtol=1e-3,
    )


def test_before_it_has_learnt_components_are_finite() -> None:
    styles = NormalStyles(10, STYLES, LENGTH, axes=4, side=4)
    components = styles.components(codes(5), torch.rand(5, APART + STYLES))
    assert styles.standardised(components).isfinite().all()
