import os
import shutil

import nibabel
import numpy as np
import pytest
from dicom_files import write_dicom_series
from PIL import Image
from pydicom import dcmread

from anomaly_lab.data.readers import pictures
from anomaly_lab.data.readers.files import crop, find_cases, is_deep, read_scan, survey
from anomaly_lab.data.readers.pictures import Rules
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import Case, UserError


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a b.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(path)
    return path


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "v.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([1, 2, 3, 1])), path)
    return path


def _case(image, **facts):
    return Case("x", "p", image, 1, **facts)


def test_picture_and_volume_are_read_by_their_names(picture, volume):
    assert read_scan(_case(picture), 3).pixels.shape == (3, 6, 8)
    scan = read_scan(_case(volume), 1)
    assert scan.pixels.shape == (1, 3, 4, 5)
    assert scan.spacing == (1, 2, 3)


def test_masks_come_with_their_images_and_must_fit(picture, volume, tmp_path):
    Image.fromarray(np.eye(6, 8, dtype=np.uint8)).save(tmp_path / "m.png")
    assert read_scan(_case(picture, mask=tmp_path / "m.png"), 1).mask.sum() == 6
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.diag([1, 2, 3, 1])), tmp_path / "m.nii")
    assert read_scan(_case(volume, mask=tmp_path / "m.nii"), 1).mask.sum() == 60
    Image.fromarray(np.eye(5, dtype=np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"m\.png: the mask is \(5, 5\) pixels, its image \(6, 8\)"):
        read_scan(_case(picture, mask=tmp_path / "m.png"), 1)


def test_box_is_cut_out_of_everything_and_must_lie_inside(picture):
    scan = Scan(read_scan(_case(picture), 1).pixels, mask=np.eye(6, 8, dtype=bool)[None])
    part = crop(scan, (1, 2, 3, 4), picture)
    assert part.pixels[0].tolist() == [[10, 11, 12, 13], [18, 19, 20, 21], [26, 27, 28, 29]]
    assert part.mask[0].astype(int).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    for box in ((-1, 0, 3, 3), (4, 0, 3, 3), (0, 6, 3, 3)):
        with pytest.raises(UserError, match="extends beyond the 6×8 picture"):
            crop(scan, box, picture)


def test_depth_is_told_by_the_header(picture, volume, tmp_path):
    Image.fromarray(np.full((4, 4), 999, np.uint16)).save(tmp_path / "deep.png")
    assert [is_deep(path) for path in (picture, tmp_path / "deep.png", volume)] == [False, True, True]


def test_new_files_are_found_by_kind(picture, volume, tmp_path):
    folder = tmp_path / "new"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(picture, folder / "sub" / "ä.PNG")
    shutil.copy(volume, folder / "v.nii.gz")
    (folder / "notes.txt").write_text("not a picture")
    write_dicom_series(folder / "ct", np.random.default_rng(0).integers(0, 99, (4, 6, 6), np.int16))
    cases = {case.id: case for case in find_cases(folder)}
    assert {"sub/ä.PNG", "v.nii.gz"} < set(cases)
    (series,) = (case for id, case in cases.items() if id.startswith("ct/"))
    assert len(series.slices) == 3
    assert find_cases(volume)[0].id == "v.nii.gz"
    assert find_cases(folder / "notes.txt") == []


def test_what_trains_can_be_scored_and_the_rest_is_listed(picture, tmp_path):
    folder, odd = tmp_path / "new", os.fsdecode(b"caf\xe9.png")
    (folder / "@eaDir").mkdir(parents=True)
    for name in ("A.PNG", "b.webp", "c.gif", "notes.txt", "._A.PNG", "@eaDir/A.PNG", "Thumbs.db", odd):
        shutil.copy(picture, folder / name)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(picture, tmp_path / "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    found = survey(folder)
    assert [case.id for case in found.cases] == ["A.PNG", "b.webp", "linked/a b.png"]
    assert [path.name for path in found.left_out] == ["c.gif", odd, "notes.txt"]
    assert survey(picture).left_out == {}


def test_results_among_what_is_to_be_scored_are_listed_and_not_scored(picture, tmp_path):
    (tmp_path / "new" / "res" / "maps").mkdir(parents=True)
    for name in ("a.png", "res/prediction.json", "res/scores.csv", "res/maps/a.png.map.png"):
        shutil.copy(picture, tmp_path / "new" / name)
    found = survey(tmp_path / "new")
    assert [case.id for case in found.cases] == ["a.png"]
    assert found.left_out == {tmp_path / "new" / "res": "the folder of a run or prediction"}


def test_the_rules_of_pictures_reach_image_and_mask(picture, tmp_path):
    Image.fromarray(np.full((6, 8), 7, np.uint8)).save(tmp_path / "m.png")
    case = _case(picture, mask=tmp_path / "m.png")
    assert not read_scan(case, 1, Rules(mask_values=(1,))).mask.any()
    assert read_scan(case, 1, Rules(mask_values=(7,), range=94)).pixels.max() == 128


def test_a_decoder_s_panic_is_a_user_s_error(picture, monkeypatch):
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    for error, seen in ((panic("index out of\nbounds"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)):
        monkeypatch.setattr(pictures, "read_image", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(seen):
            read_scan(_case(picture), 1)
    monkeypatch.setattr(pictures, "read_image", lambda *_: (_ for _ in ()).throw(panic("out of\nbounds")))
    with pytest.raises(UserError, match=r"a b\.png: the decoder broke off \(out of bounds\)"):
        read_scan(_case(picture), 1)


def test_one_dicom_file_is_found_and_objects_that_are_no_scans_are_not(tmp_path):
    files = write_dicom_series(tmp_path / "a", np.arange(24, dtype=np.uint16).reshape(2, 3, 4))
    localizer = dcmread(files[0])
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer.save_as(tmp_path / "a" / "x")
    (case,) = find_cases(tmp_path)
    assert {case.image, *case.slices} == set(files)
    (alone,) = find_cases(files[1])
    assert alone.image == files[1]
    assert alone.id == files[1].name
