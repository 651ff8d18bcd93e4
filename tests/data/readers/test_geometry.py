"""Every way a scan can lie on disk: its voxels come back to where they were."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_lab.data.preprocessing.patches import cut, grid
from anomaly_lab.data.readers.geometry import displacement, is_sheared, onto, oriented, resampled, unsheared
from anomaly_lab.data.readers.nifti import read_nifti, save_map
from anomaly_lab.evaluation.stitching import Stitcher
from anomaly_lab.types import UserError

ORIENTATIONS = ["".join(codes) for axes in permutations(["RL", "AP", "SI"]) for codes in product(*axes)]
SHAPE = (6, 7, 9)


def lying(axcodes: str, shape=SHAPE, spacing=(0.9, 1.1, 2.5)) -> tuple[np.ndarray, np.ndarray]:
    """A volume [1, *S] whose axes run as `axcodes` says, and its affine."""
    affine = np.zeros((4, 4))
    for axis, code in enumerate(axcodes):
        world = "RAS".find(code) if code in "RAS" else "LPI".find(code)
        affine[world, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    affine[:, 3] = [-31.7, 12.3, 70.1, 1]
    return np.random.default_rng(0).normal(0, 50, (1, *shape)).astype(np.float32), affine


def turned(seed: int, shear: float = 0.0) -> np.ndarray:
    """An oblique affine."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ (np.eye(3) + shear * rng.uniform(-1, 1, (3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = axes * rng.uniform(0.5, 4, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def there_and_back(folder: Path, pixels: np.ndarray, affine: np.ndarray, extent, overlap: float) -> None:
    """Write, read, turn, cut, stitch, carry back, write, read: the same bits in the same places."""
    nib.save(nib.Nifti1Image(pixels[0], affine), folder / "scan.nii")
    scan = read_nifti(folder / "scan.nii")
    working, moved = oriented(scan.pixels, scan.affine)
    locations = grid(working.shape[1:], extent, overlap)
    stitcher = Stitcher(working.shape[1:])
    for start, patches in enumerate(cut(working, locations, extent, None, at_once=8)):
        stitcher.add(patches[:, 0], locations[8 * start : 8 * start + 8])
    save_map(folder / "map.nii", onto(stitcher.result()[None], moved, scan.affine, scan.shape)[0], scan.affine)
    back = nib.load(folder / "map.nii")
    assert np.array_equal(np.asarray(back.dataobj), pixels[0])
    assert np.array_equal(back.affine, nib.load(folder / "scan.nii").affine)


def test_there_are_48():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_there_and_back_from_every_orientation(tmp_path, axcodes):
    there_and_back(tmp_path, *lying(axcodes), extent=(3, 4, 4), overlap=0.5)


@pytest.mark.parametrize("seed", range(20))
def test_there_and_back_from_oblique_scans(tmp_path, seed):
    pixels, _ = lying("RAS")
    there_and_back(tmp_path, pixels, turned(seed, shear=0.1 * (seed % 2)), extent=(1, 4, 3), overlap=0.25)


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_axes_run_as_asked(axcodes):
    """Against MONAI's Orientation, and the voxels stay where they were in mm."""
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.array import Orientation

    pixels, affine = lying(axcodes)
    moved, its = oriented(pixels, affine)
    assert "".join(nib.aff2axcodes(its)) == "IPL"
    assert np.shares_memory(moved, pixels)
    judge = Orientation("IPL")(MetaTensor(pixels.copy(), affine=affine))
    assert np.array_equal(moved, np.asarray(judge))
    assert np.allclose(its, np.asarray(judge.affine))


@given(seed=st.integers(0, 10_000), axcodes=st.sampled_from(ORIENTATIONS))
@settings(max_examples=50, deadline=None)
def test_voxels_stay_where_they_were(seed, axcodes):
    values, affine = np.arange(24.0).reshape(1, 2, 3, 4), turned(seed)
    moved, its = oriented(values, affine, axcodes)
    for index in np.ndindex(2, 3, 4):
        (place,) = np.argwhere(moved[0] == values[(0, *index)])
        assert np.allclose(affine @ [*index, 1], its @ [*place, 1])
    assert np.array_equal(onto(moved, its, affine, (2, 3, 4)), values)


@pytest.mark.parametrize("axcodes", ["", "RA", "RAX", "RLS", "ras", "RASS"])
def test_axcodes_that_name_no_axes(axcodes):
    with pytest.raises(UserError, match=r"data\.volume\.axcodes"):
        oriented(*lying("RAS"), axcodes)


def smooth(affine: np.ndarray, shape) -> np.ndarray:
    """A slow wave through the world, sampled on a grid, [1, *S]."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), [1], indexing="ij"))[..., 0].reshape(4, -1)
    x, y, z = (affine @ index)[:3]
    return np.sin(x / 15 + y / 20 + z / 25).reshape(1, *shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_resampled_values_are_those_of_their_places(seed):
    affine = turned(seed)
    affine[:3, :3] *= 1.5 / np.linalg.norm(affine[:3, :3], axis=0)
    volume = smooth(affine, (20, 24, 22))
    moved, its = resampled(volume, affine, (1.0, 2.0, 1.3))
    assert np.allclose(np.linalg.norm(its[:3, :3], axis=0), (1.0, 2.0, 1.3))
    assert np.allclose(its[:3, :3] / (1.0, 2.0, 1.3), affine[:3, :3] / 1.5)  # the directions stay
    inside = (slice(None), *[slice(2, -2)] * 3)
    assert np.abs(moved - smooth(its, moved.shape[1:]))[inside].max() < 0.01
    back = onto(moved, its, affine, volume.shape[1:])
    assert back.dtype == np.float32
    assert np.abs(back - volume)[inside].max() < 0.02


def test_resampling_a_mask_keeps_its_type_and_volume():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    mask = np.zeros((1, 20, 20, 20), bool)
    mask[:, 5:15, 5:15, 5:15] = True
    moved, its = resampled(mask, affine, (2.0, 2.0, 2.0), "nearest")
    assert moved.dtype == bool
    assert abs(moved.sum() * 8 - 1000) < 250
    assert onto(moved, its, affine, mask.shape[1:], "nearest").dtype == bool


def test_nothing_is_resampled_without_need():
    pixels, affine = lying("RAS")
    moved, its = resampled(pixels, affine, (0.9, 1.1, 2.5))
    assert moved is pixels
    assert its is affine


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, 1, -2)])
def test_spacing_that_cannot_be(spacing):
    with pytest.raises(UserError, match=r"data\.volume\.spacing"):
        resampled(*lying("RAS"), spacing)


def test_outside_of_the_values_is_0():
    affine = np.eye(4)
    target = np.eye(4)
    target[:3, 3] = -3
    moved = onto(np.ones((1, 4, 4, 4), np.float32), affine, target, (10, 10, 10))
    expected = np.zeros((1, 10, 10, 10))
    expected[:, 3:7, 3:7, 3:7] = 1
    assert np.allclose(moved, expected)


@pytest.mark.parametrize("shift", [0.4, 1.0])
def test_a_shifted_grid_is_another_grid(shift):
    values, affine = lying("RAS")
    target = affine.copy()
    target[:3, 3] += affine[:3, 0] * shift
    moved = onto(values, affine, target, SHAPE)
    expected = (1 - shift) * values[:, :-1] + shift * values[:, 1:]
    assert np.allclose(moved[:, :-1], expected, atol=1e-3)


def test_displacement_is_in_voxels_of_the_first():
    affine, other = np.diag([2.0, 2.0, 4.0, 1.0]), np.diag([2.0, 2.0, 4.4, 1.0])
    assert displacement(affine, affine, (5, 5, 11)) == 0
    assert displacement(affine, other, (5, 5, 11)) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(10))
def test_an_unsheared_affine_keeps_planes_spacing_and_origin(seed):
    affine = turned(seed, shear=0.2 * (seed % 2))
    upright = unsheared(affine)
    assert not is_sheared(upright)
    assert is_sheared(affine) == bool(seed % 2)
    np.testing.assert_allclose(np.linalg.norm(upright[:3, :3], axis=0), np.linalg.norm(affine[:3, :3], axis=0))
    np.testing.assert_array_equal(upright[:, 3], affine[:, 3])
    np.testing.assert_allclose(upright[:3, 0], affine[:3, 0])
    assert np.sign(np.linalg.det(upright)) == np.sign(np.linalg.det(affine))
    if not seed % 2:
        np.testing.assert_allclose(upright, affine, atol=1e-12)
