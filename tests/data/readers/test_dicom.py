import io
import logging
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from dicom_files import IDENTIFYING, MARKER, UID, chest, dicom_slice, enhanced, save, write_dicom_series
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from anomaly_lab.data.readers import dicom
from anomaly_lab.types import UserError

STORED = np.random.default_rng(0).integers(0, 3000, (5, 6, 8)).astype(np.uint16)


def test_values_and_geometry_equal_an_independent_reader(tmp_path):
    files = write_dicom_series(tmp_path, STORED)
    scan = dicom.read_series(files)
    judge = SimpleITK.ImageSeriesReader()
    judge.SetFileNames(judge.GetGDCMSeriesFileNames(str(tmp_path)))
    image = judge.Execute()
    assert scan.pixels.dtype == np.int16
    np.testing.assert_array_equal(scan.pixels[0], SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0))
    voxel = (3, 1, 4)
    left, back, up = image.TransformIndexToPhysicalPoint(voxel)
    np.testing.assert_allclose(scan.affine @ [*voxel, 1], [-left, -back, up, 1])
    np.testing.assert_allclose(scan.spacing, (0.75, 0.5, 2.0))


@pytest.mark.parametrize("shuffle", [1, 2])
def test_names_and_order_of_the_files_play_no_part(tmp_path, shuffle):
    first = dicom.read_series(write_dicom_series(tmp_path / "a", STORED))
    again = dicom.read_series(write_dicom_series(tmp_path / "b", STORED, shuffle=shuffle)[::-1])
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.affine, again.affine)


def test_each_slice_has_its_own_rescale_and_fractions_make_it_float(tmp_path):
    slopes = (1, 2.5, 4)
    slices = [
        dicom_slice(STORED[z], 2.0 * z, RescaleSlope=slope, RescaleIntercept=-z) for z, slope in enumerate(slopes)
    ]
    scan = dicom.read_series([save(dataset, tmp_path / str(z)) for z, dataset in enumerate(slices)])
    assert scan.pixels.dtype == np.float32
    for z, slope in enumerate(slopes):
        np.testing.assert_allclose(scan.pixels[0, :, :, z].T, STORED[z] * slope - z)


def test_whole_numbers_beyond_sixteen_bits_become_float_and_stay_exact(tmp_path):
    stored = STORED.copy()
    stored[3, 2, 1] = 65535
    scan = dicom.read_series(write_dicom_series(tmp_path, stored))
    assert scan.pixels.dtype == np.float32
    np.testing.assert_array_equal(scan.pixels[0].T, stored.astype(np.int64) - 1024)


def test_signed_data_and_unused_bits(tmp_path):
    pixels = np.array([[-5, 4], [2047, -2048]], np.int16)
    dirty = (pixels & 0x0FFF).astype(np.int16)  # the sign is bit 11, nothing is said of the four above
    path = save(dicom_slice(dirty, BitsStored=12, HighBit=11, RescaleIntercept=0), tmp_path / "x")
    scan = dicom.read_series([path])
    np.testing.assert_array_equal(scan.pixels[0, :, :, 0].T, pixels)


@pytest.mark.parametrize("unsigned", [False, True])
def test_padding_takes_the_lowest_value_outside_it(tmp_path, unsigned):
    stored = STORED.astype(np.int16) + 24
    stored[:, 0] = -2000
    files = write_dicom_series(tmp_path, stored)
    for path in files:
        dataset = dcmread(path)
        dataset.add_new("PixelPaddingValue", "US" if unsigned else "SS", 63536 if unsigned else -2000)
        save(dataset, path)
    pixels = dicom.read_series(files).pixels[0]
    lowest = stored[:, 1:].min() - 1024
    assert (pixels[:, 0] == lowest).all()
    np.testing.assert_array_equal(pixels[:, 1:].T, stored[:, 1:].astype(int) - 1024)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.name[:9])
def test_compressed_series_are_the_same(tmp_path, syntax):
    stored = np.tile(STORED, (1, 6, 6))  # JPEG 2000 wants 32 pixels at least
    slices = [dicom_slice(stored[z], 2.0 * z) for z in range(2)]
    for dataset in slices:
        dataset.compress(syntax, generate_instance_uid=False)
    scan = dicom.read_series([save(dataset, tmp_path / str(z)) for z, dataset in enumerate(slices)])
    np.testing.assert_array_equal(scan.pixels[0].T, stored[:2].astype(int) - 1024)


def test_the_default_install_decodes_what_it_should_and_no_copyleft():
    from pydicom.pixels.decoders.base import get_decoder

    lossless = "1.2.840.10008.1.2.4."
    for syntax in (
        *[lossless + end for end in ("50", "57", "70", "80", "81", "90", "91", "201")],
        "1.2.840.10008.1.2.5",
    ):
        assert get_decoder(syntax).is_available
    pins = (Path(__file__).parents[3] / "requirements.lock").read_text()
    assert "pylibjpeg-libjpeg" not in pins


def test_multi_frame_files_are_ordered_and_rescaled_by_frame(tmp_path):
    path = save(enhanced(STORED[:3], [4.0, 0.0, 2.0], [1.0, 2.0, 3.0]), tmp_path / "multi.dcm")
    scan = dicom.read_series([path])
    for place, frame in enumerate((1, 2, 0)):
        expected = STORED[frame].astype(int) * (frame + 1)
        np.testing.assert_array_equal(scan.pixels[0, :, :, place].T, expected)
    assert scan.window == (7.0, 9.0)
    np.testing.assert_allclose(scan.affine[:3, 3], (10, 20, 0))
    assert dicom.is_deep(path)
    assert not dicom.is_picture(path)


def test_missing_slices_are_refused_or_stand_blank_in_their_places(tmp_path):
    files = write_dicom_series(tmp_path, STORED)
    files.pop(3)
    with pytest.raises(UserError, match="1 of 5 slices are missing"):
        dicom.read_series(files)
    pixels = dicom.read_series(files, gaps="blank").pixels[0].T
    there = [0, 1, 2, 4]
    np.testing.assert_array_equal(pixels[there], STORED[there].astype(int) - 1024)
    assert (pixels[3] == pixels[there].min()).all()


def test_windows_are_handed_on_by_order_or_name(tmp_path):
    windows = {"WindowCenter": [40, 600], "WindowWidth": [80, 2800], "WindowCenterWidthExplanation": ["SOFT", "BONE"]}
    files = write_dicom_series(tmp_path, STORED, **windows)
    assert dicom.read_series(files).window == (40, 80)
    assert dicom.read_series(files, voi="BONE").window == (600, 2800)
    assert dicom.read_series(files, voi=None).window is None
    with pytest.raises(UserError, match=r"data\.voi=LUNG") as caught:
        dicom.read_series(files, voi="LUNG")
    assert "BONE" not in str(caught.value)


def test_monochrome1_inverts_pictures_and_no_units(tmp_path):
    files = write_dicom_series(tmp_path / "ct", STORED, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(dicom.read_series(files).pixels[0].T, STORED.astype(int) - 1024)
    pixels = np.array([[0, 10], [100, 255]], np.uint8)
    picture = save(chest(pixels, PhotometricInterpretation="MONOCHROME1"), tmp_path / "cxr.dcm")
    np.testing.assert_array_equal(dicom.read_picture(picture, 1)[0], 255 - pixels)


def test_eight_bits_are_kept_and_more_stretch_over_sixteen(tmp_path):
    eight = np.array([[0, 10], [100, 255]], np.uint8)
    path = save(chest(eight), tmp_path / "eight")
    assert not dicom.is_deep(path)
    pixels = dicom.read_picture(path, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, [eight] * 3)
    twelve = np.array([[0, 1], [2048, 4095]], np.uint16)
    path = save(chest(twelve, BitsStored=12, HighBit=11), tmp_path / "twelve")
    assert dicom.is_deep(path)
    np.testing.assert_array_equal(dicom.read_picture(path, 1)[0], np.rint(twelve * (65535 / 4095)))


def test_picture_passes_rescale_then_window_then_padding(tmp_path):
    pixels = np.array([[0, 100, 200], [300, 4000, 77]], np.uint16)
    header = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 200, "WindowWidth": 400}
    dataset = chest(pixels, VOILUTFunction="LINEAR_EXACT", PhotometricInterpretation="MONOCHROME1", **header)
    dataset.add_new("PixelPaddingValue", "US", 77)
    path = save(dataset, tmp_path / "x")
    shown = 1 - ((pixels * 2.0 - 100) / 400).clip(0, 1)
    shown[1, 2] = 0  # padding is as dark as the darkest
    np.testing.assert_array_equal(dicom.read_picture(path, 1)[0], np.rint(shown * 65535))
    unwindowed = dicom.read_picture(path, 1, voi=None)[0]
    assert len(np.unique(unwindowed)) == 5  # nothing is clipped


def test_colour_needs_three_channels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    dataset = chest(colours, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    path = save(dataset, tmp_path / "rgb")
    np.testing.assert_array_equal(dicom.read_picture(path, 3), colours.transpose(2, 0, 1))
    with pytest.raises(UserError, match=r"rgb: it is in colour, where grey is expected"):
        dicom.read_picture(path, 1)


def test_a_tree_is_grouped_by_uid_and_the_rest_is_counted(tmp_path):
    write_dicom_series(tmp_path / "one folder", STORED)
    write_dicom_series(tmp_path / "ünd noch einer", STORED, SeriesInstanceUID=f"{UID}.3", PatientID="")
    for number, dataset in enumerate([dicom_slice(STORED[0], z, SeriesInstanceUID=f"{UID}.4") for z in (0, 2)]):
        save(dataset, tmp_path / "one folder" / f"other{number}")
    (tmp_path / "LICENSE").write_text("free")
    (tmp_path / "notes.dcm").write_bytes(b"\x08\x00 this is none")
    save(dicom_slice(STORED[0], Rows=None), tmp_path / "report.dcm")
    listing = dicom.list_tree(tmp_path)
    assert sorted(len(series.files) for series in listing.series) == [2, 5, 5]
    assert {path.name for path in listing.others} == {"LICENSE", "notes.dcm", "report.dcm"}
    assert dicom.find_series(tmp_path) == listing.series
    assert {series.modality for series in listing.series} == {"CT"}
    assert len({series.patient for series in listing.series}) == 2
    assert all(len(series.key) == 12 and int(series.key, 16) >= 0 for series in listing.series)
    assert dicom.series_key(f"{UID}.4") in {series.key for series in listing.series}


def test_files_without_preamble_or_suffix_are_recognised(tmp_path):
    for number, implicit in enumerate((True, False)):
        dataset = dicom_slice(STORED[number], 2.0 * number)
        del dataset.file_meta
        dataset.preamble = None
        path = tmp_path / str(number)
        dataset.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        assert dicom.is_dicom(path)
        assert path.read_bytes()[128:132] != b"DICM"
    (series,) = dicom.find_series(tmp_path)
    np.testing.assert_array_equal(dicom.read_series(series.files).pixels[0].T, STORED[:2].astype(int) - 1024)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"\x89PNG\r\n", b"P5 2 2 255\n", b"\x08\x00", b"\x5c\x01\x00\x00"])
def test_other_files_are_not_dicom(tmp_path, content):
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    assert not dicom.is_dicom(path)
    assert not dicom.is_dicom(tmp_path / "missing")
    assert not dicom.is_deep(path)


FAULTS = {
    "it has no pixel data": {"PixelData": None},
    r"its rescale is 0 × value": {"RescaleSlope": 0},
    "every voxel of the series is": {"PixelData": bytes(96)},
    r"its window has centre 40 and width 0; set data\.voi=null": {"WindowCenter": 40, "WindowWidth": 0},
    "a centre without a width or a width without a centre": {"WindowCenter": 40},
    "it is in colour, where grey is expected": {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
    "cannot be decoded": {"PixelData": bytes(10)},
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_series_are_named(tmp_path, message):
    files = write_dicom_series(tmp_path / "some series", STORED, **FAULTS[message])
    with pytest.raises(UserError, match=message) as caught:
        dicom.read_series(files)
    assert "some series" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_garbled_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone: no such file"):
        dicom.read_series([tmp_path / "gone"])
    garbled = tmp_path / "garbled"
    garbled.write_bytes(bytes(128) + b"DICM" + b"\xff" * 200)
    with pytest.raises(UserError, match="garbled"):
        dicom.read_series([garbled])


def test_an_absent_codec_names_its_package(tmp_path, monkeypatch):
    dataset = dicom_slice(np.tile(STORED[0], (6, 6)))
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    path = save(dataset, tmp_path / "x")

    class Absent:
        is_available = False

    monkeypatch.setattr("pydicom.pixels.decoders.base.get_decoder", lambda uid: Absent)
    with pytest.raises(
        UserError, match=r"x: its pixels are compressed as JPEG 2000.*pip install pylibjpeg pylibjpeg-ope"
    ):
        dicom.read_series([path])


@pytest.mark.parametrize(
    ("message", "elements"),
    [
        ("it has 2 frames, where one is expected", {"NumberOfFrames": 2}),
        ("every pixel is the same", {"PixelData": bytes(8)}),
        ("width -3", {"WindowCenter": 1, "WindowWidth": -3}),
        ("it has no pixel data", {"PixelData": None}),
    ],
)
def test_faulty_pictures_are_named(tmp_path, message, elements):
    path = save(chest(np.array([[0, 9], [2, 3]], np.uint16), **elements), tmp_path / "ä b.dcm")
    with pytest.raises(UserError, match=f"ä b.dcm: .*{message}"):
        dicom.read_picture(path, 1)


BROKEN = {  # each makes pydicom say something that quotes the header
    "fine": {},
    "bad number": {"RescaleSlope": f"{MARKER}"},
    "bad spacing": {"PixelSpacing": [f"{MARKER}", "1"]},
    "no place": {"ImagePositionPatient": None},
    "no pixels": {"PixelData": None},
    "few pixels": {"PixelData": bytes(7)},
    "bad window": {"WindowCenter": 1, "WindowWidth": 0, "WindowCenterWidthExplanation": MARKER},
    "bad charset": {"SpecificCharacterSet": f"{MARKER.upper()}_1"},
    "bad uid": {"SeriesInstanceUID": f"{MARKER}.1.2"},
    "bad photometry": {"PhotometricInterpretation": MARKER.upper()},
}


@pytest.mark.parametrize("fault", BROKEN)
def test_nothing_of_a_person_leaves_the_reader(tmp_path, capsys, fault):
    said, log = [], io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    logging.getLogger("pydicom").addHandler(handler)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        files = _marked_files(tmp_path, BROKEN[fault])
        heard.clear()
        log.truncate(0)
        for act in (dicom.list_tree, lambda root: dicom.read_series(files, voi="BONE"), dicom.read_series):
            try:
                said.append(repr(act(tmp_path if act is dicom.list_tree else files)))
            except UserError as error:
                said += [str(error), repr(error), "".join(traceback.format_exception(error))]
        for path in files:
            try:
                said += [repr(dicom.is_deep(path)), repr(dicom.read_picture(path, 1))]
            except UserError as error:
                said += [str(error), "".join(traceback.format_exception(error))]
    logging.getLogger().removeHandler(handler)
    logging.getLogger("pydicom").removeHandler(handler)
    everything = "\n".join([*said, *[str(each.message) for each in heard], log.getvalue(), *capsys.readouterr()])
    everything = everything.replace(str(tmp_path), "")
    lines = [line for line in everything.splitlines() if not line.lstrip().startswith(("said", "File"))]
    for secret in (MARKER.lower(), UID, "19010203"):
        assert secret not in "\n".join(lines).lower()


def test_a_garbled_transfer_syntax_is_not_repeated(tmp_path, recwarn):
    path = save(dicom_slice(STORED[0]), tmp_path / "x")
    content = path.read_bytes()
    assert content.count(b"1.2.840.10008.1.2.1\0") == 1
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", MARKER.encode().ljust(20)))
    with pytest.raises(UserError) as caught:
        dicom.read_series([path])
    assert not any(MARKER in said for said in (str(caught.value), *(str(each.message) for each in recwarn)))


def _marked_files(folder: Path, elements: dict) -> list[Path]:
    """Two slices with a marker wherever a person could be named, whatever pydicom thinks of the values."""
    from pydicom import config

    was = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        slices = [dicom_slice(STORED[z], 2.0 * z) for z in range(2)]
        for dataset in slices:
            assert all(MARKER in str(dataset[keyword].value) for keyword in IDENTIFYING)
            for keyword, value in elements.items():
                _set(dataset, keyword, value)
        return [save(dataset, folder / str(z)) for z, dataset in enumerate(slices)]
    finally:
        config.settings.writing_validation_mode = was


def _set(dataset, keyword: str, value) -> None:
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    if value is None:
        del dataset[keyword]
    elif isinstance(value, bytes) or MARKER.lower() not in str(value).lower():
        setattr(dataset, keyword, value)
    else:  # raw, or pydicom would refuse to write it
        text = "\\".join(value) if isinstance(value, list) else value
        tag = Tag(tag_for_keyword(keyword))
        vr = {"RescaleSlope": "DS", "PixelSpacing": "DS", "SeriesInstanceUID": "UI"}.get(keyword, "CS")
        content = (text + " " * (len(text) % 2)).encode()
        dataset._dict[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)
