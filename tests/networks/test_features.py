"""Pixels' range, principal components against scikit-learn, and a file that is not SqueezeNet's."""

from pathlib import Path

import pytest
import torch
from sklearn.decomposition import PCA
from torchvision.models import squeezenet1_0

from anomaly_lab.networks.features import Pixels, Projection, SqueezeNetFeatures
from anomaly_lab.types import UserError


def test_pixels_are_from_0_to_1() -> None:
    image = torch.tensor([[[[-1.0, 0.0]], [[0.5, 1.0]]]])
    assert Pixels(4)(image).tolist() == [[0.0, 0.5, 0.75, 1.0]]


def test_coordinates_are_scikit_learns() -> None:
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([9, 5, 4, 3, 1, 1, 0.1, 0.1])
    projection = Projection(8, 6)
    projection.learn(x)
    pca = PCA(0.95, svd_solver="full", whiten=True).fit(x.double())
    expected = torch.from_numpy(pca.transform(x.double())).float()
    assert projection.dimensions == expected.shape[1] == 4
    found = projection(x)
    torch.testing.assert_close(found[:, :4].abs(), expected.abs(), rtol=1e-4, atol=1e-4)  # an axis has no sign
    assert not found[:, 4:].any()


def test_without_axes_rows_stay_as_they_are() -> None:
    x = torch.randn(5, 3)
    projection = Projection(3, 0)
    projection.learn(x)
    assert torch.equal(projection(x), x)
    assert projection.dimensions == 3


def test_more_axes_than_rows() -> None:
    projection = Projection(10, 8)
    projection.learn(torch.randn(4, 10, generator=torch.Generator().manual_seed(0)))
    assert projection.dimensions <= 3
    assert projection(torch.randn(2, 10)).isfinite().all()


def test_squeezenet_gives_one_row_an_image_and_never_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = squeezenet1_0(weights=None).state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    network = SqueezeNetFeatures()
    network.load(str(tmp_path / "weights.pth"))
    assert torch.equal(network.features.state_dict()["0.weight"], weights["features.0.weight"])
    grey = torch.rand(2, 1, 32, 32) * 2 - 1
    found = network(grey)
    assert found.shape == (2, 512)
    torch.testing.assert_close(network(grey.expand(-1, 3, -1, -1)), found)
    assert not any(p.requires_grad for p in network.parameters())


def test_squeezenet_shows_its_weights_the_colours_they_know() -> None:
    image = (torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 32, 32)) * 2 - 1
    seen = []
    for network in (SqueezeNetFeatures("caffe"), SqueezeNetFeatures()):
        network.features[0].register_forward_pre_hook(lambda _, given: seen.append(given[0][0, :, 5, 7]))
        network(image)
    torch.testing.assert_close(seen[0], torch.tensor([153.0 - 104, 102.0 - 117, 51.0 - 123]), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen[1][0], torch.tensor((0.2 - 0.485) / 0.229))


def test_a_file_that_is_missing_or_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        SqueezeNetFeatures().load("nowhere.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: not the weights"):
        SqueezeNetFeatures().load(str(tmp_path / "other.pth"))
