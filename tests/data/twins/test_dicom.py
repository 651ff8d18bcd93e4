import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from anomaly_lab.data.datasets.dicom import Dicom
from anomaly_lab.data.twins.dicom import write_twin


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    root = tmp_path_factory.mktemp("twin")
    write_twin(root, seed=0, size=144)
    return root


@pytest.fixture(scope="module")
def data(twin):
    return Dicom(root=str(twin), batch_size=2)


@pytest.fixture(scope="module")
def cases(twin, data):
    return data.cases(twin)


def test_series_patients_and_masks_are_as_announced(cases):
    assert len(cases) == 18
    assert sum(case.label for case in cases) == 9
    assert all((case.mask is not None) == bool(case.label) for case in cases)
    labels = {}
    for case in cases:
        labels.setdefault(case.patient, []).append(case.label)
    assert sorted(map(len, labels.values()))[-4:] == [2, 2, 2, 2]
    assert all(len(set(both)) == 1 for both in labels.values())


def test_every_awkward_case_is_in_both_classes(cases):
    for label in (0, 1):
        headers = [dcmread(case.image, force=True) for case in cases if case.label == label]
        syntaxes = {header.file_meta.get("TransferSyntaxUID", None) for header in headers}
        assert len(syntaxes) == 4  # uncompressed, RLE, JPEG 2000, and none where there is no preamble
        assert {header.PhotometricInterpretation for header in headers} == {"MONOCHROME1", "MONOCHROME2"}
        assert any("PixelPaddingValue" in header for header in headers)
        assert len({tuple(header.ImageOrientationPatient) for header in headers}) > 2


def test_volumes_are_heads_in_hounsfield_units_and_lesions_bleed(data, cases):
    for case in cases[::3]:
        scan = data.read(case)
        pixels = scan.pixels[0]
        assert -1100 < pixels.min() < -950
        assert 800 < pixels.max() < 1300
        assert scan.window is None
        if scan.mask is not None:
            brain = (pixels > 0) & (pixels < 60) & ~scan.mask[0]
            assert 0.002 < scan.mask.mean() < 0.1
            assert pixels[scan.mask[0]].mean() > pixels[brain].mean()


def test_files_do_not_lie_in_the_order_of_space(cases):
    heights = []
    case = cases[0]
    for path in (case.image, *case.slices):
        assert path.suffix == ""
        heights.append(float(dcmread(path).ImagePositionPatient[2]))
    assert heights not in (sorted(heights), sorted(heights)[::-1])


def test_a_series_depends_on_seed_and_number_alone(twin, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        write_twin(tmp_path / name, seed, 8)
    roots = (twin, tmp_path / "again", tmp_path / "other")
    first, again, other = ([path.read_bytes() for path in sorted((root / "anomalous/001").iterdir())] for root in roots)
    assert first == again != other
    masks = [nib.load(root / "masks/anomalous/001.nii.gz").get_fdata() for root in roots[:2]]
    np.testing.assert_array_equal(*masks)
