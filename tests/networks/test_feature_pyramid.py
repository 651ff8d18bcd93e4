"""The pyramid's levels and its five classifiers by hand."""

import pytest
import torch
from torch.nn import functional as F

from anomaly_lab.networks.backbones import ARCHITECTURES, Stages
from anomaly_lab.networks.feature_pyramid import FeaturePyramid, LevelClassifiers

SIDES = {"inception_v3": [35, 17, 8, 4], "squeezenet1_0": [54, 27, 13, 7]}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_four_levels_of_256_channels(name: str) -> None:
    side = 299 if name == "inception_v3" else 224
    with torch.device("meta"):
        levels = FeaturePyramid(ARCHITECTURES[name].widths)(Stages(name)(torch.zeros(2, 3, side, side)))
    assert [tuple(level.shape[:2]) for level in levels] == [(2, 256)] * 4
    assert [level.shape[-1] for level in levels] == SIDES.get(name, [56, 28, 14, 7])


def test_as_many_parameters_as_counted_by_hand() -> None:
    with torch.device("meta"):
        pyramid, heads = FeaturePyramid((256, 512, 1024, 2048)), LevelClassifiers(5)
    lateral = sum(256 * width + 256 for width in (256, 512, 1024, 2048))
    assert sum(p.numel() for p in pyramid.parameters()) == lateral + 4 * (9 * 256 * 256 + 256)
    assert sum(p.numel() for p in heads.parameters()) == 4 * (256 * 5 + 5) + 1024 * 5 + 5


def test_a_level_is_the_one_above_enlarged_plus_its_stage_by_hand() -> None:
    torch.manual_seed(0)
    pyramid = FeaturePyramid((3, 4, 5))
    stages = [torch.randn(1, 3, 8, 8), torch.randn(1, 4, 4, 4), torch.randn(1, 5, 2, 2)]
    inner, layer = (list(blocks) for blocks in (pyramid.pyramid.inner_blocks, pyramid.pyramid.layer_blocks))
    top = inner[2](stages[2])
    middle = inner[1](stages[1]) + F.interpolate(top, scale_factor=2.0, mode="nearest")
    bottom = inner[0](stages[0]) + F.interpolate(middle, scale_factor=2.0, mode="nearest")
    levels = pyramid(stages)
    for found, block, expected in zip(levels, layer, (bottom, middle, top), strict=False):
        torch.testing.assert_close(found, block(expected))
    assert torch.equal(levels[3], levels[2][:, :, ::2, ::2])


def test_each_classifier_sees_its_level_and_the_fifth_all() -> None:
    heads, levels = LevelClassifiers(3), [torch.randn(2, 256, side, side) for side in (8, 4, 2, 1)]
    logits = heads(levels)
    means = [level.mean((2, 3)) for level in levels]
    for i, (layer, mean) in enumerate(zip(heads.single, means, strict=True)):
        torch.testing.assert_close(logits[:, i], layer(mean))
    torch.testing.assert_close(logits[:, 4], heads.joint(torch.cat(means, 1)))
