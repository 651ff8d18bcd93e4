"""Pixel AUROC and PRO against slow exact references, in two and three dimensions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from anomaly_lab.metrics.segmentation import BINS, SAMPLE, PixelHistograms, bin_edges, pointing


def slow_pro(maps, masks, limit):
    """Bergmann et al. 2021 restated: one point of the curve for every distinct value of the maps."""
    regions = []
    for value, mask in zip(maps, masks, strict=True):
        label, count = ndimage.label(mask, np.ones([3] * mask.ndim))
        regions += [value[label == i + 1] for i in range(count)]
    normal = maps[~masks]
    fpr, overlap = [0.0], [0.0]
    for cut in np.unique(maps)[::-1]:
        fpr.append((normal >= cut).mean())
        overlap.append(np.mean([(region >= cut).mean() for region in regions]))
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr, fpr[1:], overlap, overlap[1:], strict=False):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def example(shape, seed, levels=64):
    """Three maps of few levels, so that a bin holds one level; lesions in two of them, of different sizes."""
    random = np.random.default_rng(seed)
    masks = np.zeros((3, *shape), bool)
    masks[0][tuple(slice(1, 4) for _ in shape)] = True
    masks[0][tuple(slice(-2, None) for _ in shape)] = True
    masks[1][tuple(slice(2, 3) for _ in shape)] = True
    maps = np.clip(random.normal(size=masks.shape) + 1.5 * masks, -3, 4)
    return np.round((maps + 3) / 7 * (levels - 1)) / (levels - 1), masks


def counted(maps, masks, **options):
    pixels = PixelHistograms(bin_edges(maps[:, None], masks[:, None], **options))
    for value, mask in zip(maps, masks, strict=True):
        pixels.update(torch.from_numpy(value)[None, None], torch.from_numpy(mask)[None, None])
    return pixels


@pytest.mark.parametrize("shape", [(12, 14), (8, 9, 10)])
@pytest.mark.parametrize("limit", [0.3, 0.05, 1.0])
def test_equals_the_exact_reference(shape, limit):
    maps, masks = example(shape, seed=len(shape))
    pixels = counted(maps, masks)
    assert pixels.auroc() == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert pixels.pro(limit) == pytest.approx(slow_pro(maps, masks, limit))
    assert pixels.num_masks == 2


def test_is_close_for_values_finer_than_the_bins():
    random = np.random.default_rng(0)
    masks = np.zeros((4, 32, 32), bool)
    masks[:2, 3:9, 5:20] = True
    maps = random.gamma(2.0, size=masks.shape) + masks
    pixels = counted(maps, masks)
    assert pixels.auroc() == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-4)
    assert pixels.pro() == pytest.approx(slow_pro(maps, masks, 0.3), abs=1e-3)


def test_pro_by_hand():
    # ten normal pixels, a lesion of one pixel and one of four, half of which is found before any normal
    maps = torch.tensor([[5.0, 0, 4, 4, 1, 1, 0, 0, 3, 2, 0, 0, 0, 0, 0]])
    mask = torch.tensor([[1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]]).bool()
    pixels = PixelHistograms(np.arange(6.0))
    pixels.update(maps[None, None], mask[None, None])
    # (fpr, overlap): (0, .75), (.1, .75), (.2, .75), then the rest of the lesion at 1: (.2, 1), (1, 1)
    assert pixels.pro(0.3) == pytest.approx((0.2 * 0.75 + 0.1 * 1.0) / 0.3)


def test_lesions_touching_at_a_corner_are_one():
    mask = torch.eye(2).bool()[None, None]
    pixels = PixelHistograms(np.linspace(0, 1, 9))
    pixels.update(torch.rand(1, 1, 2, 2), mask)
    assert pixels.overlap.sum() == pytest.approx(1)


def test_perfect_useless_and_reversed_maps():
    _, masks = example((12, 14), seed=0)
    perfect = masks.astype(float)
    assert (counted(perfect, masks).auroc(), counted(perfect, masks).pro()) == (1, 1)
    assert (counted(-perfect, masks).auroc(), counted(-perfect, masks).pro()) == (0, 0)
    constant = counted(np.ones_like(perfect), masks)
    assert (constant.auroc(), constant.pro(0.3)) == pytest.approx((0.5, 0.15))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.01, 1), st.sampled_from([2, 5, 300]))
def test_stays_within_zero_and_one(seed, limit, bins):
    random = np.random.default_rng(seed)
    masks = random.random((2, 6, 7)) < random.random()
    pixels = counted(random.normal(size=masks.shape), masks, bins=bins)
    assert math.isnan(pixels.pro(limit)) == (masks.all() or not masks.any())
    assert not pixels.pro(limit) > 1
    assert not pixels.pro(limit) < 0


def test_batches_add_up_in_any_order():
    maps, masks = example((12, 14), seed=5)
    forward, backward, together = (
        counted(maps, masks),
        counted(maps[::-1], masks[::-1]),
        PixelHistograms(bin_edges(maps[:, None], masks[:, None])),
    )
    together.update(torch.from_numpy(maps)[:, None], torch.from_numpy(masks)[:, None])
    assert forward.auroc() == backward.auroc() == together.auroc()
    assert forward.pro() == pytest.approx(backward.pro(), abs=1e-12)
    assert forward.pro() == together.pro()


def test_nan_without_lesions_or_without_normal_pixels():
    maps = np.random.default_rng(0).random((2, 6, 6))
    for masks in (np.zeros_like(maps, bool), np.ones_like(maps, bool)):
        pixels = counted(maps, masks)
        assert math.isnan(pixels.auroc())
        assert math.isnan(pixels.pro())


def test_refuses_what_it_cannot_count():
    pixels = PixelHistograms(np.linspace(0, 1, 9))
    with pytest.raises(ValueError, match="its mask"):
        pixels.update(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5).bool())
    with pytest.raises(ValueError, match="not finite"):
        pixels.update(torch.full((1, 1, 4, 4), math.nan), torch.zeros(1, 1, 4, 4).bool())


def test_pointing_without_a_patient_is_counting_all_others():
    maps, masks = example((12, 14), seed=3)
    maps, masks = np.concatenate([maps, maps[::-1]])[:, None], np.concatenate([masks, masks[::-1]])[:, None]
    maps[:3] = 1 - maps[:3]
    patient = np.array(["b", "a", "c", "c", "a", "d"])
    found = pointing(maps, masks, patient)
    assert (found.num_masks, found.lesioned) == (4, 3)
    assert found.figures == {
        "auroc": counted(maps[:, 0], masks[:, 0]).auroc(),
        "pro": pytest.approx(counted(maps[:, 0], masks[:, 0]).pro()),
    }
    for k, name in enumerate("abcd"):
        rest = patient != name
        left = counted(maps[rest, 0], masks[rest, 0])
        assert found.without["auroc"][k] == pytest.approx(left.auroc())
        assert found.without["pro"][k] == pytest.approx(left.pro())


def test_pointing_without_the_only_lesion_is_undefined():
    maps, masks = example((12, 14), seed=3)
    masks[0] = False
    without = pointing(maps[:, None], masks[:, None], np.arange(3)).without
    assert [math.isnan(value) for value in without["auroc"]] == [False, True, False]


def heavy(kind, shape=(24, 64, 64)):
    """Maps whose values a linear scale would press into a few bins, and lesions in a third of the images."""
    random = np.random.default_rng(7)
    masks = np.zeros(shape, bool)
    masks[::3, 10:22, 8:30] = True
    maps = random.normal(size=shape) + 1.5 * masks
    if kind == "exp":
        maps = np.exp(3 * maps)
    elif kind == "one pixel":
        maps.flat[5] = 1e5
    elif kind == "both ends":
        maps.flat[:4] = [-1e300, 1e300, -1e30, np.finfo(np.float32).min]
    elif kind == "tiny differences":
        maps = 1.0 + 1e-9 * maps
    elif kind == "mostly zero":
        maps = np.where(maps < 1.2, 0.0, np.exp(4 * maps))
    elif kind == "Cauchy":
        maps = random.standard_cauchy(shape) + 1.5 * masks
    return maps, masks


@pytest.mark.parametrize("kind", ["exp", "one pixel", "both ends", "tiny differences", "mostly zero", "Cauchy"])
def test_heavy_tails_are_as_well_resolved_as_any_values(kind):
    maps, masks = heavy(kind)
    pixels = counted(maps, masks)
    assert pixels.bins <= BINS
    assert pixels.auroc() == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-3)
    ranks = np.unique(maps, return_inverse=True)[1].reshape(maps.shape).astype(float)  # the metrics of ranks alone
    assert pixels.auroc() == pytest.approx(counted(ranks, masks).auroc(), abs=1e-9)
    assert pixels.pro() == pytest.approx(counted(ranks, masks).pro(), abs=1e-9)


def test_bins_from_a_sample_are_fine_enough(monkeypatch):
    monkeypatch.setattr("anomaly_lab.metrics.segmentation.SAMPLE", SAMPLE // 16)
    maps, masks = heavy("exp", (60, 64, 64))
    assert (~masks).sum() > SAMPLE // 16
    whole, sampled = roc_auc_score(masks.ravel(), maps.ravel()), counted(maps, masks)
    assert sampled.auroc() == pytest.approx(whole, abs=1e-3)
    assert (sampled.normal.sum(), sampled.anomalous.sum()) == ((~masks).sum(), masks.sum())


def test_pro_of_heavy_tails_is_the_exact_one():
    maps, masks = heavy("exp", (3, 20, 24))
    masks[0, 10:12, 8:12] = True
    assert counted(maps, masks).pro() == pytest.approx(slow_pro(maps, masks, 0.3))
