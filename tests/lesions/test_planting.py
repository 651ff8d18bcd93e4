"""Properties that hold for every kind of lesion, whatever the image; kinds are found by reading the package."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_lab.lesions.lesion import Lesion, smoothed
from anomaly_lab.lesions.planting import ATTEMPTS, HELD_BACK, KINDS, SEEN, TUNING, foreground, plant
from anomaly_lab.types import UserError


def heads(count: int, channels: int = 1, shape: tuple[int, ...] = (40, 40)) -> torch.Tensor:
    """Bright grainy balls on black, none like another."""
    random = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in shape), indexing="ij")
    inside = torch.stack(axes).square().sum(0).sqrt() < 0.8
    grain = smoothed(torch.randn(count * channels, *shape, generator=random), 1.0).view(count, channels, *shape)
    return torch.where(inside, (0.6 * grain).clamp(-0.8, 0.9), -1.0)


def by_name(kind: Lesion) -> str:
    return kind.name


@pytest.mark.parametrize("shape", [(40, 40), (32, 48), (24, 26, 28)], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=by_name)
def test_every_kind_changes_its_mask_and_nothing_else(kind: Lesion, shape: tuple[int, ...]) -> None:
    image = heads(4, channels=2, shape=shape)
    for seed in range(3):
        planted, mask, names = plant(image, seed, (kind,), donors=heads(3, channels=2, shape=shape))
        assert names == (kind.name,) * 4
        assert mask.shape == (4, 1, *shape)
        assert mask.dtype == torch.bool
        difference = (planted - image).abs().amax(1, keepdim=True)
        assert (difference[~mask] == 0).all()
        means = [difference[i][mask[i]].mean().item() for i in range(4)]
        assert min(means) >= SEEN * 0.999
        assert planted.isfinite().all()
        assert planted.amin() >= -1
        assert planted.amax() <= 1
        assert planted.dtype == image.dtype


@pytest.mark.parametrize("kind", KINDS, ids=by_name)
def test_a_lesion_depends_on_image_and_seed_alone(kind: Lesion) -> None:
    image, donors = heads(5), heads(2)
    together = plant(image, 7, (kind,), donors)
    alone = [plant(image[i : i + 1], 7, (kind,), donors) for i in (4, 2, 0)]
    assert all(torch.equal(one.image[0], together.image[i]) for one, i in zip(alone, (4, 2, 0), strict=True))
    assert not torch.equal(plant(image, 8, (kind,), donors).image, together.image)
    torch.manual_seed(3)  # nor on any global state
    np.random.seed(3)
    assert torch.equal(plant(image, 7, (kind,), donors).image, together.image)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sides=st.lists(st.integers(8, 33), min_size=2, max_size=3),
    channels=st.integers(1, 3),
)
def test_any_shape_and_seed(seed: int, sides: list[int], channels: int) -> None:
    image = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (2, channels, *sides)).astype(np.float32))
    planted = plant(image, seed, KINDS)
    mask = planted.mask.expand_as(image)
    assert torch.equal(planted.image[~mask], image[~mask])
    assert planted.image.abs().amax() <= 1
    assert planted.mask.flatten(1).any(1).all()


def test_sizes_and_contrasts_are_spread() -> None:
    """A hundred discs: small and large ones, bright and dark ones, faint and strong ones."""
    image = heads(1, shape=(64, 64))
    disc = next(kind for kind in KINDS if kind.name == "disc")
    planted = [plant(image, seed, (disc,)) for seed in range(100)]
    area = torch.stack([one.mask.float().mean() for one in planted])
    change = torch.stack([(one.image - image)[one.mask].mean() for one in planted])
    assert area.min() < 0.004
    assert area.max() > 0.06
    assert 30 < int((change > 0).sum()) < 70
    assert change.abs().min() < 0.1
    assert change.abs().max() > 0.4


def test_lesions_lie_in_the_foreground() -> None:
    image = heads(1, shape=(64, 64))
    masks = torch.stack([plant(image, seed).mask[0, 0] for seed in range(60)])
    hits = masks & foreground(image[0])
    assert (hits.flatten(1).sum(1) > 0.25 * masks.flatten(1).sum(1)).all()  # a centre at the rim reaches beyond it
    assert hits.any(0).float().sum() > 0.5 * foreground(image[0]).sum()  # and everywhere


def test_a_light_background_is_one_too() -> None:
    image = torch.ones(3, 9, 9)
    image[:, 3:6, 3:6] = -0.5
    assert foreground(image).sum() == 9
    assert foreground(torch.zeros(1, 9, 9)).all()  # nothing but background: no place is better than another
    assert foreground(torch.linspace(-1, 1, 81).view(1, 9, 9)).all()  # no background


def test_the_families_are_disjoint_and_declared_by_the_kinds() -> None:
    assert {*TUNING} | {*HELD_BACK} == {*KINDS}
    assert len(TUNING) + len(HELD_BACK) == len(KINDS)
    assert min(len(TUNING), len(HELD_BACK)) >= 4
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_the_tissue_of_a_patch_comes_from_the_donors() -> None:
    paste = next(kind for kind in KINDS if kind.name == "cutpaste")
    image, white = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    planted = plant(image, 0, (paste,), donors=white)
    assert (planted.image[planted.mask] == 1).all()


def test_what_cannot_be_changed_stays_and_has_no_mask() -> None:
    """A blur of something flat, drawn ATTEMPTS times, is not called a lesion."""
    blur = next(kind for kind in KINDS if kind.name == "blur")
    flat = torch.zeros(2, 1, 16, 16)
    planted = plant(flat, 0, (blur,))
    assert torch.equal(planted.image, flat)
    assert not planted.mask.any()
    assert planted.kind == ("", "")
    assert ATTEMPTS > 1


@pytest.mark.parametrize("shape", [(1, 1, 16), (1, 16, 16), (1, 1, 4, 16), (1, 1, 2, 16, 16)], ids=str)
def test_other_shapes_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="at least 8 pixels"):
        plant(torch.zeros(shape), 0)
    with pytest.raises(UserError, match="no kind"):
        plant(torch.zeros(1, 1, 16, 16), 0, ())
    assert plant(torch.zeros(0, 1, 16, 16), 0).image.shape == (0, 1, 16, 16)
