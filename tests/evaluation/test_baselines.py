"""The two baselines against scikit-learn, and what a score may not depend on."""

import pytest
import torch
from sklearn.decomposition import PCA

from anomaly_lab.evaluation import baselines
from anomaly_lab.evaluation.baselines import Baselines


def pictures(n, seed, shape=(1, 12, 12)):
    """Pictures [n, *shape] whose pixels vary together, as those of real ones do."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(60, torch.Size(shape).numel(), generator=torch.Generator().manual_seed(99))
    spread = 0.9 ** torch.arange(60)
    return (torch.randn(n, 60, generator=generator) * spread @ basis / 20).reshape(n, *shape)


@pytest.mark.parametrize("n", [8, 33, 100, 300])
def test_equals_scikit_learn(n):
    train, others = pictures(n, 0), pictures(20, 1)
    scores = Baselines.fit(train.split(16)).scores(others.split(7))
    x, y = train.flatten(1).double().numpy(), others.flatten(1).double().numpy()
    pca = PCA(min(32, n - 1), svd_solver="full").fit(x)
    error = ((y - pca.inverse_transform(pca.transform(y))) ** 2).mean(1)
    assert scores["pca_32"].tolist() == pytest.approx(error.tolist(), rel=1e-6)
    assert scores["mean_image"].tolist() == pytest.approx(((y - x.mean(0)) ** 2).mean(1).tolist(), rel=1e-6)


def test_a_score_depends_neither_on_batches_nor_on_neighbours():
    train, others = pictures(50, 0), pictures(24, 1)
    whole = Baselines.fit([train]).scores([others])
    pieces = Baselines.fit(train.split(7)).scores(others.split(5))
    backward = Baselines.fit([train]).scores([others.flip(0)])
    for name, scores in whole.items():
        assert torch.equal(scores, pieces[name])
        assert torch.equal(scores, backward[name].flip(0))


def test_a_defect_raises_both_scores():
    train, others = pictures(60, 0), pictures(10, 1)
    defect = others.clone()
    defect[:, :, 3:6, 3:6] += 3
    scores = Baselines.fit([train]).scores([others, defect])
    for values in scores.values():
        assert (values[10:] > values[:10]).all()


def test_training_images_that_hardly_vary():
    train = pictures(1, 0).repeat(5, 1, 1, 1)
    scores = Baselines.fit([train]).scores([pictures(4, 1)])
    assert torch.equal(scores["pca_32"], scores["mean_image"])
    assert Baselines.fit([train[:1]]).scores([train])["pca_32"].tolist() == [0] * 5


def test_volumes_and_colours():
    scores = Baselines.fit([pictures(9, 0, (3, 4, 5, 6))]).scores([pictures(2, 1, (3, 4, 5, 6))])
    assert {name: tuple(values.shape) for name, values in scores.items()} == {
        "mean_image": (2,),
        "pca_32": (2,),
    }


def test_maps_are_the_residuals_that_the_scores_are_made_of():
    fitted, others = Baselines.fit([pictures(40, 0)]), pictures(6, 1)
    scores, maps = fitted.scores([others]), fitted.maps(others)
    for name, found in maps.items():
        assert found.shape == (6, 1, 12, 12)
        assert found.double().square().flatten(1).mean(1).tolist() == pytest.approx(scores[name].tolist(), rel=1e-5)
    mean = pictures(40, 0).double().mean(0)
    colour = Baselines.fit([pictures(9, 0, (3, 4, 5, 6))]).maps(pictures(2, 1, (3, 4, 5, 6)))
    assert colour["pca_32"].shape == (2, 1, 4, 5, 6)
    assert torch.allclose(maps["mean_image"], (others - mean).abs().float(), atol=1e-6)


def test_many_training_images_are_sampled_always_alike(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_IMAGES", 40)
    train, others = pictures(200, 0), pictures(12, 1)
    first, again = (Baselines.fit(train.split(size)).scores([others]) for size in (200, 13))
    assert torch.equal(first["pca_32"], again["pca_32"])
    from_the_first = Baselines.fit([train[:40]]).scores([others])
    assert not torch.equal(first["mean_image"], from_the_first["mean_image"])
    monkeypatch.setattr(baselines, "MAX_VALUES", 1)
    assert torch.equal(first["pca_32"], Baselines.fit([train]).scores([others])["pca_32"])  # never fewer than 64


def test_nothing_to_fit_and_nothing_to_score():
    with pytest.raises(ValueError, match="no training images"):
        Baselines.fit([]).scores([pictures(2, 0)])
    assert {len(values) for values in Baselines.fit([pictures(5, 0)]).scores([]).values()} == {0}
