import hashlib
import io
import logging
import struct
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from dicom_files import IDENTIFYING, MARKER, UID, chest, dicom_slice, enhanced, save, write_dicom_series
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from anomaly_lab.data.readers import dicom
from anomaly_lab.data.readers.scan import Tolerance
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


def test_pixels_in_the_upper_bits_are_moved_down(tmp_path):
    pixels = np.array([[0, 1], [2048, 4095]], np.uint16)
    low = save(chest(pixels, BitsStored=12, HighBit=11), tmp_path / "low")
    high = save(chest(pixels << 4 | 5, BitsStored=12, HighBit=15), tmp_path / "high")
    np.testing.assert_array_equal(dicom.read_picture(high, 1), dicom.read_picture(low, 1))
    signed = save(
        dicom_slice((pixels << 4).view(np.int16), BitsStored=12, HighBit=15, RescaleIntercept=0), tmp_path / "signed"
    )
    np.testing.assert_array_equal(dicom.read_series([signed]).pixels[0, :, :, 0].T, [[0, 1], [-2048, -1]])


@pytest.mark.parametrize("implicit", [False, True])
def test_a_table_whose_first_input_is_negative_is_read_in_every_encoding(tmp_path, implicit):
    curve = np.sqrt(np.arange(4096) / 4095) * 4095
    table = Dataset()
    table.add_new("LUTDescriptor", "US" if implicit else "SS", [4096, 65536 - 1024 if implicit else -1024, 12])
    table.add_new("LUTData", "OW", curve.astype("<u2").tobytes())
    pixels = np.array([[0, 1], [2048, 4095]], np.uint16)
    dataset = chest(
        pixels,
        **{"BitsStored": 12, "HighBit": 11, "RescaleSlope": 1, "RescaleIntercept": -1024},
        VOILUTSequence=Sequence([table]),
    )
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    path = save(dataset, tmp_path / "x")
    expected = curve.astype(int)[pixels] / 4095
    np.testing.assert_array_equal(dicom.read_picture(path, 1)[0], np.rint(expected * 65535))


def test_one_slice_without_rescale_among_others_with_it_is_refused(tmp_path):
    files = write_dicom_series(tmp_path, STORED)
    save(dicom_slice(STORED[2], 4, RescaleSlope=None, RescaleIntercept=None), files[2])
    with pytest.raises(UserError, match=f"{files[2].name}: it has no rescale, although 0.* of the same series has one"):
        dicom.read_series(files)
    plain = write_dicom_series(tmp_path / "mr", STORED, RescaleSlope=None, RescaleIntercept=None)
    np.testing.assert_array_equal(dicom.read_series(plain).pixels[0].T, STORED)


NO_SCANS = {  # SOP class, elements
    "Segmentation Storage": (uid.SegmentationStorage, {"Modality": "SEG"}),
    "RT Dose Storage": (uid.RTDoseStorage, {"Modality": "RTDOSE"}),
    "Secondary Capture Image Storage": (uid.SecondaryCaptureImageStorage, {}),
    "Parametric Map Storage": (uid.ParametricMapStorage, {}),
    "Grayscale Softcopy Presentation State Storage": (
        uid.GrayscaleSoftcopyPresentationStateStorage,
        {"Rows": None, "PixelData": None},
    ),
    "Basic Text SR Storage": (uid.BasicTextSRStorage, {"Rows": None, "PixelData": None}),
    "localizer": (uid.CTImageStorage, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    "mosaic": (uid.MRImageStorage, {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}),
}


def test_series_that_a_prediction_wrote_are_not_read(tmp_path):
    write_dicom_series(tmp_path / "a", STORED)
    write_dicom_series(tmp_path / "res" / "maps", STORED)
    for name in ("prediction.json", "scores.csv"):
        (tmp_path / "res" / name).touch()
    listing = dicom.list_tree(tmp_path)
    assert [len(series.files) for series in listing.series] == [len(STORED)]
    assert (listing.others, listing.results) == ([], [tmp_path / "res"])


def test_what_is_no_scan_is_left_out_by_kind(tmp_path):
    files = write_dicom_series(tmp_path / "a", STORED)
    for kind, (sop, elements) in NO_SCANS.items():  # under the series' own UID, the worst place
        dataset = dicom_slice(STORED[0], 100, **({"SOPClassUID": sop} | elements))
        dataset.file_meta.MediaStorageSOPClassUID = sop
        save(dataset, tmp_path / "a" / f"{kind}.dcm")
    listing = dicom.list_tree(tmp_path)
    (series,) = listing.series
    assert set(series.files) == set(files)
    assert {path.stem: kind for path, kind in listing.left_out.items()} == {kind: kind for kind in NO_SCANS}
    assert set(listing.others) == set(listing.left_out)
    assert not listing.unreadable
    screenshots = dicom.list_tree(tmp_path, include=["Secondary Capture Image Storage"])
    assert "Secondary Capture Image Storage" not in screenshots.left_out.values()
    (named,) = dicom.find_series(tmp_path / "a" / "localizer.dcm")  # whoever names one file means it
    assert len(named.files) == 1


def test_classes_that_nobody_knows_are_scans(tmp_path):
    dataset = dicom_slice(STORED[0], SOPClassUID="1.2.3.4.5.6")
    save(dataset, tmp_path / "x")
    assert len(dicom.find_series(tmp_path)) == 1


def test_one_uid_of_several_patients_or_modalities_is_a_series_each(tmp_path):
    for number, changes in enumerate(({}, {"PatientID": "B"}, {"Modality": "MR"})):
        write_dicom_series(tmp_path / f"{number}", STORED + number, **changes)
    series = dicom.find_series(tmp_path)
    key = dicom.series_key(f"{UID}.2")
    assert [each.key for each in series] == [key, f"{key}-2", f"{key}-3"]
    assert [each.patient for each in series] == ["patient 001", "patient 002", "patient 001"]
    assert [len(each.files) for each in series] == [5, 5, 5]


def test_views_under_one_uid_are_pictures_of_their_own(tmp_path):
    for number in range(2):
        save(chest((STORED[number] >> 4).astype(np.uint8)), tmp_path / f"{number}.dcm")
    assert [each.files[0].name for each in dicom.find_series(tmp_path)] == ["0.dcm", "1.dcm"]
    lost = tmp_path / "ct"  # a CT without positions is no set of pictures: it is refused
    write_dicom_series(lost, STORED, ImagePositionPatient=None, SeriesInstanceUID=f"{UID}.3")
    (series,) = dicom.find_series(lost)
    with pytest.raises(UserError, match="its position in space is missing"):
        dicom.read_series(series.files)


def test_patients_are_numbered_by_their_first_files(tmp_path):
    for name, patient in (("a", "9"), ("b", "1"), ("c", "9"), ("d", "")):
        write_dicom_series(tmp_path / name, STORED, PatientID=patient, SeriesInstanceUID=f"{UID}.{ord(name)}")
    names = ["patient 001", "patient 002", "patient 001", "patient 003"]
    assert [each.patient for each in dicom.find_series(tmp_path)] == names
    for secret in ("9", "1"):
        digests = [
            hashlib.new(kind, f"{before}{secret}".encode()).hexdigest()[:6]
            for kind in ("sha256", "sha1", "md5")
            for before in ("patient:", "")
        ]
        assert not any(digest in repr(dicom.list_tree(tmp_path).series) for digest in digests)
    who = [each.patient for each in dicom.list_tree(tmp_path, patient_of=lambda path: path.parent.name).series]
    assert who == [f"patient {number:03d}" for number in (1, 2, 3, 4)]


def test_one_file_that_cannot_be_read_does_not_end_the_list(tmp_path):
    write_dicom_series(tmp_path / "a", STORED)
    (tmp_path / "b.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 200)
    listing = dicom.list_tree(tmp_path)
    assert len(listing.series) == 1
    assert [path.name for path in listing.unreadable] == ["b.dcm"]
    with pytest.raises(UserError, match=r"b\.dcm"):
        dicom.find_series(tmp_path)


HOSTILE = {
    "claims 1000000 frames, more than it has bytes": {"NumberOfFrames": 1_000_000},
    "is not a readable DICOM file": {"NumberOfFrames": -3},
    "claims 2000000000 voxels; raise data.volume.max_voxels=1000000000": {
        "NumberOfFrames": 500, "Rows": 2000, "Columns": 2000,
    },
    "its size is 0 × 8 pixels": {"Rows": 0},
}  # fmt: skip


@pytest.mark.parametrize("message", HOSTILE)
def test_what_a_header_claims_is_checked_before_it_costs_anything(tmp_path, message):
    path = save(dicom_slice(STORED[0], SpacingBetweenSlices=1, **HOSTILE[message]), tmp_path / "x")
    start = time.monotonic()
    with pytest.raises(UserError, match=message):
        dicom.read_series([path])
    assert time.monotonic() - start < 2


def test_the_limit_counts_slices_and_gaps(tmp_path):
    files = write_dicom_series(tmp_path, STORED)
    with pytest.raises(UserError, match="max_voxels=239"):
        dicom.read_series(files, tolerance=Tolerance(max_voxels=239))
    assert dicom.read_series(files, tolerance=Tolerance(max_voxels=240)).pixels.size == 240
    with pytest.raises(UserError, match="max_voxels=239"):
        dicom.read_series([*files[:2], *files[3:]], gaps="blank", tolerance=Tolerance(max_voxels=239))
    picture = save(chest(STORED[0]), tmp_path / "picture")
    with pytest.raises(UserError, match="max_voxels=47"):
        dicom.read_picture(picture, 1, tolerance=Tolerance(max_voxels=47))


def test_a_decoder_that_panics_is_a_broken_file(tmp_path):
    dataset = dicom_slice(STORED[0])
    dataset.compress(RLELossless, generate_instance_uid=False)
    segment = bytes([49]) + bytes(50)  # 50 bytes for 48 pixels: the decoder, in Rust, runs past its end
    dataset.PixelData = encapsulate([struct.pack("<16I", 2, 64, 64 + 51, *[0] * 13) + 2 * segment])
    with pytest.raises(UserError, match=r"x: its pixels \(RLE Lossless\) cannot be decoded"):
        dicom.read_series([save(dataset, tmp_path / "x")])


def test_nan_of_floating_point_pixels_is_background_where_asked(tmp_path):
    values = STORED[:1].astype(np.float32) + 3
    values[0, 0] = np.nan
    dataset = dicom_slice(STORED[0], RescaleSlope=None, RescaleIntercept=None, PixelData=None)
    dataset.FloatPixelData, dataset.BitsAllocated = values.tobytes(), 32
    path = save(dataset, tmp_path / "x")
    with pytest.raises(UserError, match=r"data\.volume\.nan=background"):
        dicom.read_series([path])
    pixels = dicom.read_series([path], tolerance=Tolerance(nan="background")).pixels[0, :, :, 0].T
    np.testing.assert_array_equal(pixels[1:], values[0, 1:])
    assert (pixels[0] == values[0, 1:].min()).all()
