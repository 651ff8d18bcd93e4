import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from anomaly_lab.data.readers.nifti import is_nifti, read_nifti, read_nifti_mask, save_map
from anomaly_lab.data.readers.scan import Scan, Tolerance
from anomaly_lab.types import UserError

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0]) + np.eye(4, k=3) * 5
SHAPE = (4, 5, 6)


def volume(dtype=np.int16, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def write(path: Path, values: np.ndarray, affine=AFFINE, slope=None, kind=nib.Nifti1Image) -> Path:
    image = kind(values, affine, dtype=values.dtype)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    return read_nifti(write(tmp_path / "scan.nii", volume()))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_suffixes(name, tmp_path):
    assert is_nifti(tmp_path / name)
    assert not is_nifti(tmp_path / f"{name}.png")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "an öther folder/scan 1.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_numbers_types_and_places_are_kept(tmp_path, name, dtype, kind):
    values = volume(dtype)
    scan = read_nifti(write(tmp_path / name, values, kind=kind))
    assert np.array_equal(scan.pixels, values[None])
    assert scan.pixels.dtype == values.dtype.newbyteorder("=")
    assert scan.pixels.dtype.isnative
    assert np.array_equal(scan.affine, AFFINE)
    assert scan.affine.dtype == np.float64
    assert scan.spacing == (2, 3, 4)


def test_rescaled_by_the_header(tmp_path):
    scan = read_nifti(write(tmp_path / "a.nii.gz", volume(), slope=(0.5, -10)))
    raw = np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj.get_unscaled())
    assert scan.pixels.dtype == np.float32
    assert np.array_equal(scan.pixels[0], raw * np.float32(0.5) - 10)


def test_trailing_single_axes_are_dropped(tmp_path):
    values = volume(shape=(4, 5, 6, 1, 1))
    assert np.array_equal(read_nifti(write(tmp_path / "a.nii", values)).pixels, values[None, ..., 0, 0])


def test_a_volume_of_one_slice(tmp_path):
    assert read_nifti(write(tmp_path / "a.nii", volume(shape=(4, 5, 1)))).pixels.shape == (1, 4, 5, 1)


def holding(value: float) -> np.ndarray:
    values = volume(np.float32)
    values[1, 2, 3] = value
    return values


def header_of(**fields):
    """A file whose header was changed afterwards."""

    def make(path: Path) -> None:
        image = nib.Nifti1Image(volume(), AFFINE)
        for name, value in fields.items():
            image.header[name] = value
        with path.with_name("raw").open("wb") as file:
            image.header.write_to(file)
            file.write(b"\0" * 4 + volume().tobytes(order="F"))
        path.write_bytes(gzip.compress(path.with_name("raw").read_bytes()))

    return make


def cut_short(path: Path) -> None:
    whole = write(path, volume(shape=(20, 20, 20))).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def cut_short_uncompressed(path: Path) -> None:
    whole = write(path.with_name("whole.nii"), volume()).read_bytes()
    path.write_bytes(gzip.compress(whole[:-50]))


def damaged(path: Path) -> None:
    whole = bytearray(write(path, volume(shape=(20, 20, 20))).read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 200] = b"\xff" * 200
    path.write_bytes(whole)


FAULTS = {
    "ends too early": cut_short,
    "cannot be read": damaged,
    "cannot be read.*[Ee]xpected": cut_short_uncompressed,
    "not a NIfTI file": lambda path: path.write_bytes(gzip.compress(b"no header at all" * 100)),
    "not a NIfTI file$|not a NIfTI file;": header_of(magic=b"bad"),
    "file is empty": lambda path: path.write_bytes(b""),
    "every voxel is 0": lambda path: write(path, np.zeros(SHAPE, np.int16)),
    "every voxel is 7": lambda path: write(path, np.full(SHAPE, 7, np.int16)),
    "NaN or infinite voxels": lambda path: write(path, holding(np.nan)),
    "NaN or infinite voxels;": lambda path: write(path, holding(np.inf)),
    "has 4 axes .4×5×6×2.": lambda path: write(path, volume(shape=(4, 5, 6, 2))),
    "has 5 axes": lambda path: write(path, volume(shape=(4, 5, 6, 1, 3))),
    "has 2 axes": lambda path: write(path, volume(shape=(4, 5))),
    "spacing is 2×0×4 mm": header_of(srow_y=[0, 0, 0, 1]),
    "affine is singular": header_of(srow_x=[2, 2, 0, 0], srow_y=[3, 3, 0, 0]),
    "affine holds NaN": header_of(srow_z=[0, 0, np.nan, 1]),
    "only real numbers": lambda path: write(path, volume(np.complex64)),
}


@pytest.mark.parametrize("message", FAULTS)
def test_what_cannot_be_used_is_named(tmp_path, message):
    path = tmp_path / "scan.nii.gz"
    FAULTS[message](path)
    with pytest.raises(UserError, match=message) as caught:
        read_nifti(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("data.store.on_bad=skip")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_nifti(tmp_path / "none.nii.gz")


def test_mask_is_whatever_is_not_0(tmp_path, scan):
    values = (volume() % 3).astype(np.uint8)
    mask = read_nifti_mask(write(tmp_path / "mask.nii.gz", values), scan, labels=(0, 1, 2, 4))
    assert mask.dtype == bool
    assert np.array_equal(mask, values[None] > 0)


def test_mask_may_be_empty_of_floats_or_rescaled(tmp_path, scan):
    assert not read_nifti_mask(write(tmp_path / "a.nii", np.zeros(SHAPE, np.uint8)), scan).any()
    values = (volume() % 2).astype(np.float32)
    assert np.array_equal(read_nifti_mask(write(tmp_path / "b.nii", values), scan), values[None] > 0)
    grey = write(tmp_path / "c.nii", (values * 255).astype(np.uint8), slope=None)
    with grey.open("r+b") as file:  # 0 and 255, times 1/255
        file.seek(112)
        file.write(np.float32(1 / 255).tobytes())
    assert np.array_equal(read_nifti_mask(grey, scan), values[None] > 0)


def test_mask_may_lie_a_rounding_away(tmp_path, scan):
    rounded = AFFINE + 1e-4
    rounded[3] = AFFINE[3]
    assert read_nifti_mask(write(tmp_path / "mask.nii", volume(np.uint8), rounded), scan).any()


MASK_FAULTS = {
    "mask is 4×5×5 voxels, its volume 4×5×6": (volume(shape=(4, 5, 5)), AFFINE, None),
    "is not aligned with its volume.*up to 1 voxels": (volume(), AFFINE + np.eye(4, k=3) * 2, None),
    "is not aligned with its volume": (volume(), AFFINE @ np.diag([-1, 1, 1, 1]), None),
    "holds 3; the allowed labels are 0, 1, 2, 4": (volume() % 4, AFFINE, (0, 1, 2, 4)),
    "holds 0.5; the allowed labels are non-negative": ((volume() % 2).astype(np.float32) / 2, AFFINE, None),
    "holds nan": (holding(np.nan), AFFINE, None),
    "holds -1": (-(volume() % 2), AFFINE, None),
}


@pytest.mark.parametrize("message", MASK_FAULTS)
def test_mask_that_does_not_fit_is_named(tmp_path, scan, message):
    values, affine, labels = MASK_FAULTS[message]
    path = write(tmp_path / "mask.nii.gz", values, affine)
    with pytest.raises(UserError, match=message) as caught:
        read_nifti_mask(path, scan, labels)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_mask_may_be_read_without_its_scan(tmp_path):
    path = write(tmp_path / "mask.nii.gz", volume(np.uint8, (2, 3, 4)))
    assert read_nifti_mask(path, None).shape == (1, 2, 3, 4)


def test_a_saved_map_has_the_affine_and_nothing_else(tmp_path):
    values, affine = np.random.default_rng(0).normal(size=(3, 4, 5)), np.diag([-1.5, 2, 3, 1])
    save_map(tmp_path / "map.nii.gz", values, affine)
    image = nib.load(tmp_path / "map.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj), values.astype(np.float32))
    assert np.array_equal(image.affine, affine)
    assert image.header["descrip"].item() == b""
    assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(("unit", "edge"), [("micron", 2000.0), ("meter", 0.002), ("mm", 2.0), ("unknown", 2.0)])
def test_lengths_are_mm_whatever_the_header_measures_in(tmp_path, unit, edge):
    image = nib.Nifti1Image(volume(), np.diag([edge, edge, 2 * edge, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    scan = read_nifti(tmp_path / "a.nii.gz")
    assert np.allclose(scan.spacing, (2, 2, 4))
    assert np.allclose(scan.spacing, SimpleITK.ReadImage(tmp_path / "a.nii.gz").GetSpacing())
    lesion = nib.Nifti1Image(volume(np.uint8), scan.affine)  # a mask may say it in mm
    nib.save(lesion, tmp_path / "b.nii")
    assert read_nifti_mask(tmp_path / "b.nii", scan).any()


def place(path: Path) -> list[float]:
    """Origin, spacing and directions as ITK has them."""
    image = SimpleITK.ReadImage(path)
    return [*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection()]


TURNED = AFFINE @ np.array([[0.8, -0.6, 0, 7], [0.6, 0.8, 0, -9], [0, 0, 1, 2], [0, 0, 0, 1]])
CUBE = np.diag([3.0, 3, 3, 1])


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("unit", ["micron", "meter", "mm", "unknown"])
@pytest.mark.parametrize("codes", [(1, 2), (2, 1), (1, 0), (0, 1), (0, 0), (4, 3)])
def test_a_map_lies_on_its_scan_in_every_viewer(tmp_path, codes, unit, kind):
    image = kind(volume(), None)
    turned = CUBE @ np.array([[0.8, -0.6, 0, 7], [0.6, 0.8, 0, -9], [0, 0, 1, 2], [0, 0, 0, 1]])
    image.set_qform(CUBE, codes[0])
    image.set_sform(turned, codes[1])
    image.header.set_xyzt_units(unit)
    image.header["descrip"] = b"Doe, Jane"
    path, written = tmp_path / "scan.nii.gz", tmp_path / "map.nii.gz"
    nib.save(image, path)
    scan = read_nifti(path)
    save_map(written, scan.pixels[0], scan.affine, path)
    header, own = nib.load(written).header, nib.load(path).header
    assert np.array_equal(header.get_qform(), own.get_qform())
    assert np.array_equal(header.get_sform(), own.get_sform())
    assert (header["qform_code"], header["sform_code"]) == codes
    assert header["descrip"].item() == b""
    assert np.array_equal(read_nifti(written).affine, scan.affine)
    if kind is nib.Nifti1Image:  # ITK reads no NIfTI-2
        assert place(written) == place(path)


def test_a_sheared_map_can_be_opened_by_itk(tmp_path):
    tilt = np.array([[-2, 0, 0, 10], [0, -2 * np.cos(0.2), 0, 20], [0, -2 * np.sin(0.2), 3, 5], [0, 0, 0, 1]])
    save_map(tmp_path / "map.nii", volume(), tilt)
    assert np.allclose(nib.load(tmp_path / "map.nii").affine, tilt)  # the sform keeps the shear
    expected = [-10, -20, 5, 2, 2, 3, 1, 0, 0, 0, np.cos(0.2), np.sin(0.2), 0, -np.sin(0.2), np.cos(0.2)]
    assert np.allclose(place(tmp_path / "map.nii"), expected, atol=1e-6)
    write(tmp_path / "scan.nii", volume(), tilt)
    with pytest.raises(RuntimeError):
        place(tmp_path / "scan.nii")
    save_map(tmp_path / "map.nii", volume(), tilt, tmp_path / "scan.nii")
    assert np.allclose(place(tmp_path / "map.nii"), expected, atol=1e-6)


def test_nan_is_background_where_asked(tmp_path):
    values = volume(np.float32) + 5
    values[:, :2] = np.nan
    path = write(tmp_path / "a.nii.gz", values)
    with pytest.raises(UserError, match=r"set data\.volume\.nan=background"):
        read_nifti(path)
    scan = read_nifti(path, Tolerance(nan="background"))
    assert np.array_equal(scan.foreground[0], ~np.isnan(values))
    assert np.array_equal(scan.pixels[0, :, 2:], values[:, 2:])
    assert (scan.pixels[0, :, :2] == values[:, 2:].min()).all()
    values[0, 4, 4] = np.inf
    with pytest.raises(UserError, match="NaN or infinite") as caught:
        read_nifti(write(tmp_path / "b.nii", values), Tolerance(nan="background"))
    assert str(caught.value).count("\n") == 0
    with pytest.raises(UserError, match="every voxel is NaN"):
        read_nifti(write(tmp_path / "c.nii", np.full(SHAPE, np.nan, np.float32)), Tolerance(nan="background"))


def claiming(kind, shape, offset=None):
    """A header that promises `shape`, and a few bytes behind it."""
    header = kind.header_class()
    header["dim"][: len(shape) + 1] = [len(shape), *shape]
    header["datatype"], header["bitpix"], header["sform_code"] = 4, 16, 1
    header["srow_x"][0], header["srow_y"][1], header["srow_z"][2] = 1, 1, 1
    header["vox_offset"] = len(header.binaryblock) + 4 if offset is None else offset
    return header.binaryblock + bytes(4) + bytes(60_000)


CLAIMS = {
    "1500³": (nib.Nifti1Image, (1500, 1500, 1500), None),
    "10¹²": (nib.Nifti2Image, (10_000, 10_000, 10_000), None),
    "overflow": (nib.Nifti2Image, (2**62, 2**62, 4), None),
    "negative": (nib.Nifti2Image, (-(2**40), 7, 7), None),
    "far": (nib.Nifti2Image, (7, 7, 7), 2**60),
    "near": (nib.Nifti2Image, (7, 7, 7), -(2**40)),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_header_is_not_believed_before_memory_is_taken(tmp_path, claim, suffix):
    path, content = tmp_path / f"a{suffix}", claiming(*CLAIMS[claim])
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"on_bad=skip$"):
        read_nifti(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_the_limit_can_be_raised(tmp_path):
    path = write(tmp_path / "a.nii.gz", volume(shape=(10, 10, 10)))
    with pytest.raises(UserError, match=r"it has 1000 voxels \(10×10×10\); raise data\.volume\.max_voxels=999"):
        read_nifti(path, Tolerance(max_voxels=999))
    assert read_nifti(path, Tolerance(max_voxels=1000)).shape == (10, 10, 10)


FORMS = {"sform": (0, 1), "qform": (1, 0), "both": (1, 1)}


@pytest.mark.parametrize("forms", FORMS)
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("flip", [1, -1])
def test_values_and_geometry_are_those_of_itk(tmp_path, forms, endian, flip):
    image = nib.Nifti1Image(volume(), None, nib.Nifti1Header(endianness=endian))
    affine = TURNED @ np.diag([flip, 1, 1, 1])
    axes = np.linalg.qr(affine[:3, :3])[0] @ np.diag([flip, 1.5, 2])
    affine[:3, :3] = axes
    image.set_qform(affine, FORMS[forms][0])
    image.set_sform(affine, FORMS[forms][1])
    image.header.set_slope_inter(2.5, -7)
    nib.save(image, tmp_path / "a.nii")
    scan, its = read_nifti(tmp_path / "a.nii"), SimpleITK.ReadImage(tmp_path / "a.nii")
    assert np.allclose(scan.pixels[0], SimpleITK.GetArrayFromImage(its).T)
    voxel = (3, 1, 4)
    left, back, up = its.TransformIndexToPhysicalPoint(voxel)
    assert np.allclose(scan.affine @ [*voxel, 1], [-left, -back, up, 1], atol=1e-4)
