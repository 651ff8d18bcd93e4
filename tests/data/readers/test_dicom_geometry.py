from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom_slice
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from scipy.spatial.transform import Rotation

from anomaly_lab.data.readers.dicom_geometry import frames_of, ordered
from anomaly_lab.types import UserError

PIXELS = np.zeros((4, 3), np.uint16)


def frame(z: float, name: str | None = None, **elements):
    (only,) = frames_of(Path(name or f"z{z:g}"), dicom_slice(PIXELS, z, **elements))
    return only


def stack(*heights: float):
    return [frame(z) for z in heights]


@pytest.mark.parametrize("seed", range(5))
def test_affine_and_order_of_any_orientation(seed):
    rng = np.random.default_rng(seed)
    right, down, normal = Rotation.random(rng=rng).as_matrix()
    origin, gap = rng.normal(0, 50, 3), 2.5
    facts = {"ImageOrientationPatient": [f"{x:.10f}" for x in (*right, *down)]}
    turn = np.sign(np.cross(right, down) @ normal)
    places = [origin + z * gap * turn * normal for z in range(6)]
    frames = [frame(0, f"{z}", ImagePositionPatient=[f"{x:.8f}" for x in places[z]], **facts) for z in range(6)]
    lattice = ordered([frames[i] for i in rng.permutation(6)])
    assert [each.path.name for each in lattice.frames] == list("012345")
    column, row, place = 2, 3, 4
    lps = places[place] + column * 0.75 * right + row * 0.5 * down
    np.testing.assert_allclose(lattice.affine @ [column, row, place, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-6)
    assert np.linalg.det(lattice.affine[:3, :3]) > 0


def test_a_tilted_gantry_keeps_its_shear():
    tilt = [1, 0, 0, 0, np.cos(0.15), -np.sin(0.15)]
    frames = [frame(z, ImageOrientationPatient=tilt, ImagePositionPatient=[0, 0, 3 * z]) for z in range(4)]
    affine = ordered(frames).affine
    np.testing.assert_allclose(affine[:3, 2], [0, 0, 3], atol=1e-12)
    assert abs(affine[:3, 1] @ affine[:3, 2]) > 0.1


def test_one_slice_is_as_thick_as_it_says():
    np.testing.assert_allclose(np.linalg.norm(ordered(stack(5)).affine[:3, :3], axis=0), (0.75, 0.5, 2))
    assert np.linalg.norm(ordered([frame(0, SliceThickness=None)]).affine[:3, 2]) == 1


FAULTS = {
    r"z10: 2 of 7 slices are missing: it lies 6 mm from z4, the usual step is 2 mm": stack(0, 2, 4, 10, 12),
    r"z7.1: the slices are unevenly spaced: it lies 3.1 mm from z4": stack(0, 2, 4, 7.1, 9.1),
    r"again: it has the same position as z2": [*stack(0, 2, 4), frame(2, "again")],
    r"z4: its size, 3 × 3 pixels, is not that of z0": [*stack(0, 2), frame(4, Rows=3)],
    r"z4: its orientation is not that": [*stack(0, 2), frame(4, ImageOrientationPatient=[0, 1, 0, 1, 0, 0])],
    r"z4: its pixel spacing is not that": [*stack(0, 2), frame(4, PixelSpacing=[0.5, 0.8])],
    r"z2: it lies 3 mm away from the line": [frame(0), frame(2, ImagePositionPatient=[-7, -20, 2]), frame(4)],
}


@pytest.mark.parametrize("message", FAULTS)
def test_what_is_no_regular_volume_is_refused_by_name(message):
    with pytest.raises(UserError, match=message) as caught:
        ordered(FAULTS[message])
    assert "data.store.on_bad=skip" in str(caught.value)


def test_gaps_are_left_blank_on_request():
    lattice = ordered(stack(4, 0, 10, 2, 12), gaps="blank")
    assert lattice.places == [0, 1, 2, 5, 6]
    np.testing.assert_allclose(lattice.affine[:3, 2], [0, 0, 2])
    with pytest.raises(UserError, match="4 of 8 slices are missing"):
        ordered(stack(0, 2, 4, 14), gaps="blank")


@pytest.mark.parametrize(
    ("message", "elements"),
    [
        (r"its position in space is missing", {"ImagePositionPatient": None}),
        (r"its position in space is missing", {"ImageOrientationPatient": None}),
        (r"not two orthogonal unit vectors", {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}),
        (r"its pixel spacing is missing", {"PixelSpacing": None}),
        (r"its pixel spacing is 0 × 0\.75 mm", {"PixelSpacing": [0, 0.75]}),
        (r"it has 3 frames without the distance", {"NumberOfFrames": 3}),
    ],
)
def test_a_place_that_makes_no_sense_is_named(message, elements):
    with pytest.raises(UserError, match=rf"x: .*{message}"):
        frame(0, "x", **elements)


@pytest.mark.parametrize(
    "offsets",
    [{"GridFrameOffsetVector": [0, -3, -6]}, {"SpacingBetweenSlices": -3}, {"GridFrameOffsetVector": [5, 2, -1]}],
)
def test_classic_multi_frame_files_step_from_their_one_position(offsets):
    frames = frames_of(Path("x"), dicom_slice(PIXELS, 5, NumberOfFrames=3, **offsets))
    assert [each.position[2] for each in frames] == [5, 2, -1]
    assert [each.number for each in ordered(frames).frames] == [2, 1, 0]


def test_nuclear_medicine_says_its_place_by_the_detector():
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
    away = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    only = frame(0, DetectorInformationSequence=Sequence([detector]), **away)
    np.testing.assert_array_equal(only.position, [1, 2, 3])
