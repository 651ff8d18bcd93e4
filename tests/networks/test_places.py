"""Features at places and distances from those of normals."""

import numpy as np
import pytest
import torch

from anomaly_lab.networks.places import PlaceBank, PlaceFeatures, PlaceGaussian, pooled
from anomaly_lab.types import UserError


def features(**over):
    torch.manual_seed(0)
    return PlaceFeatures(
        **{"backbone": "efficientnet_lite0", "stages": (1, 2), "side": 64, "patch_size": (32, 48), **over}
    )


def test_stages_are_laid_over_the_finest_grid():
    both, fine, coarse = features(), features(stages=(1,)), features(stages=(2,))
    assert both.size == (64, 96)
    assert (both.grid, both.num_features) == ((16, 24), 24 + 40)
    assert (coarse.grid, coarse.num_features) == ((8, 12), 40)
    assert fine(torch.rand(2, 1, 32, 48)).shape == (2, 24, 16, 24)


def test_a_place_sees_what_lies_there():
    network, image = features(stages=(2,), unit=False), torch.zeros(1, 1, 32, 48)
    changed = image.clone()
    changed[..., :8, :8] = 1
    difference = (network(changed) - network(image)).norm(dim=1)[0]
    assert difference[:2, :2].mean() > 10 * difference[5:, 8:].mean()


def test_unit_features_are_directions():
    image = torch.rand(1, 3, 32, 48)
    plain, unit = features()(image), features(unit=True)(image)
    torch.testing.assert_close(unit, plain / plain.norm(dim=1, keepdim=True))


def test_weights_of_the_package_are_read():
    """Of the first stages alone; those of the others stay in the file."""
    network = features(stages=(2,))
    before = network(torch.rand(1, 1, 32, 48, generator=torch.Generator().manual_seed(1)))
    assert len(network.load("package")) == 16
    assert not torch.allclose(before, network(torch.rand(1, 1, 32, 48, generator=torch.Generator().manual_seed(1))))


@pytest.mark.parametrize("stages", [(), (0,), (5,)])
def test_stages_that_there_are_not_are_refused(stages):
    with pytest.raises(ValueError, match="has the stages 1 to 4"):
        features(stages=stages)


def test_a_gaussian_gathers_in_any_parts():
    x = torch.randn(30, 4, 2, 3, generator=torch.Generator().manual_seed(0)) + 100  # far from 0: no digits are lost
    whole, parts = PlaceGaussian(4, (2, 3)), PlaceGaussian(4, (2, 3))
    whole.gather(x)
    for part in x.split(7):
        parts.gather(part)
    torch.testing.assert_close(parts.mean, whole.mean)
    covariance = np.stack([np.cov(x.double().numpy()[..., i, j].T) for i in range(2) for j in range(3)])
    np.testing.assert_allclose(parts.matrices.numpy() / 29, covariance, atol=2e-3)
    again = PlaceGaussian(4, (2, 3))
    again.load_state_dict(parts.state_dict())
    assert again.count == 30


def test_a_singular_covariance_says_what_to_do():
    places = PlaceGaussian(2, (1, 1), regularisation=0.0)
    places.gather(torch.ones(3, 2, 1, 1))
    with pytest.raises(UserError, match=r"3 normals is singular at 1 places: raise detector\.regularisation"):
        places.learn()


def test_the_bank_looks_no_further_than_it_reaches():
    rows = torch.rand(5, 3, 4, 6)
    for reach in (0, 1):
        bank = PlaceBank(5, 3, (4, 6), reach)
        bank.gather(rows)
        found = bank(rows[2:3].roll(1, 3))[0]
        assert (found[:, 1:] > 0).all() == (reach == 0)
        assert (found[:, 1:] == 0).all() == (reach == 1)


def test_nothing_lies_beyond_the_border():
    """A feature of zeros is like no normal, though the grid ends beside it."""
    bank = PlaceBank(2, 3, (2, 2), 1)
    bank.gather(torch.ones(2, 3, 2, 2))
    torch.testing.assert_close(bank(torch.zeros(1, 3, 2, 2)), torch.full((1, 2, 2), 3**0.5))


def test_in_parts_it_finds_the_same(monkeypatch):
    bank, x = PlaceBank(7, 2, (3, 3), 1), torch.rand(2, 2, 3, 3)
    bank.gather(torch.rand(7, 2, 3, 3))
    whole = bank(x)
    monkeypatch.setattr("anomaly_lab.networks.places.AT_ONCE", 1)
    assert torch.equal(bank(x), whole)


def test_pooling_by_hand():
    maps = torch.arange(20.0).view(1, 4, 5)
    assert [pooled(maps, share).item() for share in (0, 0.1, 1)] == [19, 18.5, 9.5]
