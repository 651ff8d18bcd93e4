"""CHR's refinement by hand: sizes of the paper's network, what is enlarged and what is joined."""

import torch
import torch.nn.functional as F

from anomaly_lab.networks.chr import RefinedHeads, Refinement

WIDTHS = (512, 1024, 2048)


def test_sizes_of_resnet_101_at_224() -> None:
    with torch.device("meta"):
        neck, heads = Refinement((256, *WIDTHS)), RefinedHeads((256, *WIDTHS), 5)
        stages = [
            torch.zeros(2, width, side, side) for width, side in zip((256, *WIDTHS), (56, 28, 14, 7), strict=True)
        ]
        maps = neck(stages)
        assert heads(maps).shape == (2, 3, 5)
    assert [tuple(h.shape[1:]) for h in maps] == [(2048, 7, 7), (1024, 14, 14), (512, 28, 28)]
    layers = {"deepest": (2048, 2048), "lateral2": (1024, 1024), "merge2": (3072, 1024), "lateral3": (512, 512),
              "merge3": (1536, 512)}  # fmt: skip
    for name, (a, b) in layers.items():
        assert tuple(neck.get_submodule(name).weight.shape) == (b, a, 1, 1)
        assert neck.get_submodule(name).bias is not None
    assert sum(p.numel() for p in neck.parameters()) == sum(a * b + b for a, b in layers.values())
    assert sum(p.numel() for p in heads.parameters()) == sum(width * 5 + 5 for width in WIDTHS)


def test_the_raw_deepest_stage_is_refined_further_and_then_its_result() -> None:
    torch.manual_seed(0)
    neck = Refinement((2, 3, 4))
    shallow, middle, deep = torch.randn(1, 2, 8, 8), torch.randn(1, 3, 4, 4), torch.randn(1, 4, 2, 2)
    first, second, third = neck([shallow, middle, deep])
    torch.testing.assert_close(first, F.relu(neck.deepest(deep)))

    def larger(h: torch.Tensor) -> torch.Tensor:
        return F.interpolate(h, scale_factor=2, mode="bilinear")

    expected = F.relu(neck.merge2(torch.cat([larger(deep), F.relu(neck.lateral2(middle))], 1)))
    torch.testing.assert_close(second, expected)
    expected = F.relu(neck.merge3(torch.cat([larger(expected), F.relu(neck.lateral3(shallow))], 1)))
    torch.testing.assert_close(third, expected)


def test_heads_classify_the_means_deepest_first() -> None:
    heads = RefinedHeads((9, 2, 3, 4), 5)
    maps = [torch.randn(1, width, 2, 2) for width in (4, 3, 2)]
    found = heads(maps)
    for i, (layer, h) in enumerate(zip(heads.layers, maps, strict=True)):
        torch.testing.assert_close(found[:, i], layer(h.mean((2, 3))))
