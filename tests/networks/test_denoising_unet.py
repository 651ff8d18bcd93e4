"""The denoising U-Net: its parts by hand, its size, what flows where."""

import pytest
import torch

from anomaly_lab.networks.denoising_unet import DenoisingUNet, StandardisedConv2d, _groups


def test_filters_have_mean_0_and_variance_1():
    torch.manual_seed(0)
    conv = StandardisedConv2d(3, 5)
    impulses = torch.zeros(27, 3, 5, 5)
    for k in range(27):
        impulses[k, k // 9, 1 + k // 3 % 3, 1 + k % 3] = 1
    with torch.no_grad():
        answers = conv(impulses)[:, :, 2, 2] - conv.bias  # the filters, value by value
    torch.testing.assert_close(answers.mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(answers.std(0), torch.ones(5), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("channels", "groups"), [(4, 2), (8, 4), (64, 8), (128, 16), (512, 32), (6, 3), (1, 1)])
def test_groups_are_the_authors(channels, groups):
    assert _groups(channels) == groups


def test_the_size_at_the_papers_width():
    with torch.device("meta"):
        assert sum(weight.numel() for weight in DenoisingUNet(1, 64).parameters()) == 7_701_825


def test_every_pixel_is_reached_by_far_ones_and_by_its_own():
    torch.manual_seed(0)
    network, image = DenoisingUNet(1, 4), torch.rand(1, 1, 32, 32, requires_grad=True)
    network(image)[0, 0, 16, 16].backward()
    assert image.grad[0, 0, 16, 16] != 0
    assert image.grad[0, 0, 2, 16] != 0
