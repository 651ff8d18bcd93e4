"""Sizes, the missing biases, the contrast's range and the centre by hand."""

import pytest
import torch

from anomaly_lab.networks.svdd import ContrastNorm, Hypersphere, SVDDAutoencoder, SVDDEncoder, stage_widths


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_by_hand() -> None:
    """METHODS §8.3: 5×5 kernels without bias, batch norm without scale, one linear layer without bias."""
    assert count(SVDDEncoder(1, (32, 32))) == 25 * (1 * 8 + 8 * 4) + 4 * 8 * 8 * 32 == 9_192
    assert count(SVDDEncoder(3, (32, 32))) == 25 * (3 * 32 + 32 * 64 + 64 * 128) + 128 * 16 * 128 == 520_544
    decoder = 25 * (2 * 4 + 4 * 8 + 8 * 1)
    assert count(SVDDAutoencoder(1, (32, 32))) == 9_192 + decoder
    decoder = 25 * (8 * 128 + 128 * 64 + 64 * 32 + 32 * 3)
    assert count(SVDDAutoencoder(3, (32, 32))) == 520_544 + decoder


@pytest.mark.parametrize("side", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_ranges(side: int, channels: int) -> None:
    image = torch.rand(2, channels, side, side)
    network = SVDDAutoencoder(channels, (side, side))
    assert network.encoder(image).shape == (2, 32 if channels == 1 else 128)
    reconstruction = network(image)
    assert reconstruction.shape == image.shape
    assert 0 <= reconstruction.min() <= reconstruction.max() <= 1


def test_a_constant_is_out_of_reach() -> None:
    """Black goes to 0 whatever the weights: no bias and no shift."""
    encoder = SVDDEncoder(1, (32, 32)).eval()
    assert not encoder(torch.zeros(1, 1, 32, 32)).any()
    assert not any(name.endswith("bias") for name, _ in encoder.named_parameters())


@pytest.mark.parametrize("patch_size", [(16, 16), (48, 48), (32, 64), (32, 32, 32)])
def test_other_sizes_are_refused(patch_size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="power of two"):
        stage_widths(1, patch_size)


def test_contrast_by_hand() -> None:
    norm = ContrastNorm()
    norm.measure(torch.tensor([[[[0.0, 1.0, 2.0, 5.0]]]]))  # mean 2, mean distance from it 1.5: -4/3, -2/3, 0, 2
    norm.measure(torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]]))  # -1 and 1, within the range
    torch.testing.assert_close(torch.stack([norm.low, norm.high]), torch.tensor([-4 / 3, 2.0]))
    found = norm(torch.tensor([[[[10.0, 20.0, 30.0, 60.0]]]])).flatten()  # contrast ignores brightness and scale
    torch.testing.assert_close(found, torch.tensor([0.0, 0.2, 0.4, 1.0]))
    assert norm(torch.ones(1, 1, 2, 2)).isfinite().all()


def test_the_centre_is_the_mean_kept_away_from_0() -> None:
    sphere = Hypersphere(4)
    code = torch.tensor([[1.0, 0.0, -0.1, 0.0], [2.0, 0.1, 0.0, 0.0], [3.0, 0.05, -0.02, 0.0]])
    sphere.include(code[:1])
    sphere.include(code[1:])
    torch.testing.assert_close(sphere.centre, code.mean(0))
    sphere.push()
    torch.testing.assert_close(sphere.centre, torch.tensor([2.0, 0.1, -0.1, 0.1]))
    torch.testing.assert_close(sphere(torch.tensor([[3.0, 0.1, -0.1, 2.1]])), torch.tensor([5.0]))
