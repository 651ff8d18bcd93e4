"""The blocks against their definition, written out in the paper's order of operations."""

import torch
import torch.nn.functional as F

from anomaly_lab.networks.blocks import DownBlock, UpBlock, layer_norm


def test_up_block_upsamples_before_the_shortcut() -> None:
    block, x = UpBlock(3, 5).eval(), torch.randn(2, 3, 4, 4)
    h = block.conv1(F.interpolate(F.relu(block.norm1(x)), scale_factor=2))
    h = block.conv2(F.relu(block.norm2(h)))
    expected = h + block.shortcut(F.interpolate(x, scale_factor=2))
    torch.testing.assert_close(block(x), expected)


def test_down_block_pools_before_the_shortcut() -> None:
    block, x = DownBlock(3, 5), torch.randn(2, 3, 8, 8)
    h = block.conv2(F.relu(block.norm2(block.conv1(F.relu(block.norm1(x))))))
    expected = F.avg_pool2d(h, 2) + block.shortcut(F.avg_pool2d(x, 2))
    torch.testing.assert_close(block(x), expected)


def test_layer_norm_is_over_channels_and_space_of_one_sample() -> None:
    x = torch.randn(2, 3, 4, 4) * 5 + 2
    y = layer_norm(3)(x)
    torch.testing.assert_close(y.mean((1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.var((1, 2, 3), correction=0), torch.ones(2), atol=1e-4, rtol=0)
