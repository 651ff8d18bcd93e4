"""What a run says of an upload is what it says of the file; maps lie where the scan lies."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from data_sections import sections
from dicom_files import MARKER, chest, dicom_slice, save, write_dicom_series
from PIL import Image

from anomaly_lab.data.datasets.dicom import Dicom
from anomaly_lab.data.datasets.headct import HeadCT
from anomaly_lab.evaluation.reference import Reference
from anomaly_lab.pipeline.expected_input import ExpectedInput
from anomaly_lab.pipeline.scorer import Scorer
from anomaly_lab.serving.answers import RunAnswers, overlaid
from anomaly_lab.serving.jobs import Answer, Job, Wanted
from anomaly_lab.types import Batch, Prediction

NEEDED = {"StudyID": "1", "StudyDate": "20200101", "StudyTime": "000000", "PatientSex": "O", "AccessionNumber": "1"}
NEEDED |= {"FrameOfReferenceUID": "1.2.3.4", "PositionReferenceIndicator": "", "SeriesNumber": 2, "InstanceNumber": 1}
FACTS = {"source": "twin", "caveats": ["Synthetic twin: generated"], "run": {"name": "a/1", "id": "1f"}}
STORED = np.random.default_rng(0).integers(900, 1100, (4, 24, 20)).astype(np.uint16)
STORED[2, 5, 13] = 2000  # the brightest: slice 2, row 5, column 13


class Brightness:
    """Says of every pixel how bright it is, from 0 to 2."""

    device = torch.device("cpu")
    supervised = False

    def score(self, batch: Batch) -> Prediction:
        bright = batch["image"].mean(1, keepdim=True) + 1
        return Prediction(bright.flatten(1).mean(1), bright)


class Alarm(Brightness):
    """Has no map."""

    def score(self, batch: Batch) -> Prediction:
        return Prediction(batch["image"].flatten(1).amax(1))


def answers_of(kind: type[HeadCT] | type[Dicom], tmp_path: Path, detector: Any, **changes: Any) -> RunAnswers:
    where = {"root": str(tmp_path / "none"), "source": "twin", "store_dir": str(tmp_path / "store")}
    data = kind(**sections(**(where | {"patch_size": (8, 8), "batch_size": 4} | changes)))
    reference = Reference(np.array([0.1, 0.2, 0.3]), {"value": 0.35}, (0.1, 0.35))
    return RunAnswers(Scorer(data, detector, {"rule": "max", "top_k": 10}, reference, 16), dict(FACTS))


@pytest.fixture
def pictures(tmp_path: Path) -> RunAnswers:
    return answers_of(HeadCT, tmp_path, Brightness())


@pytest.fixture
def volumes(tmp_path: Path) -> RunAnswers:
    cut = {"label": "mask", "overlap": 0.5}
    window = {"window": (0.0, 2000.0)}
    return answers_of(Dicom, tmp_path, Brightness(), cut=cut, volume=window, train_normals=2)


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Answer]:
    def ask(
        answers: RunAnswers, *files: bytes, wanted: Wanted = "score", suffix: str = "", anyway: bool = False
    ) -> Answer:
        folder = tmp_path / "upload" / "files"
        folder.mkdir(parents=True)
        for number, content in enumerate(files):
            (folder / f"{number:04d}{suffix}").write_bytes(content)
        return answers.answer(Job(folder, wanted, anyway))

    return ask


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


PICTURE = png(np.random.default_rng(1).integers(0, 256, (30, 18), np.uint8))


def test_a_picture_has_the_score_that_its_file_has(
    pictures: RunAnswers, ask: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    scored = pictures.scorer.score(tmp_path / "a.png")
    said = ask(pictures, PICTURE).content
    assert (said["score"], said["p_value"], said["pred_label"]) == (
        scored.score,
        scored.p_value,
        int(scored.score > 0.35),
    )
    assert said | FACTS == said
    assert said["reference"] == "3 validation normals"
    assert said["has_map"]


def test_the_picture_of_a_map_has_the_size_of_the_scan(pictures: RunAnswers, ask: Callable[..., Answer]) -> None:
    answer = ask(pictures, PICTURE, wanted="png")
    assert answer.file is not None
    with Image.open(answer.file) as shown:
        assert (shown.size, shown.mode) == ((18, 30), "RGB")


@pytest.mark.parametrize(("wanted", "reason"), [("nifti", "no place in space"), ("dicom", "no place in space")])
def test_a_map_that_a_picture_cannot_have(
    pictures: RunAnswers, ask: Callable[..., Answer], wanted: Wanted, reason: str
) -> None:
    answer = ask(pictures, PICTURE, wanted=wanted)
    assert answer.status == 422
    assert reason in answer.content["detail"]


def test_a_detector_without_a_map_says_so(tmp_path: Path, ask: Callable[..., Answer]) -> None:
    answer = ask(answers_of(HeadCT, tmp_path, Alarm()), PICTURE, wanted="png")
    assert "no anomaly map" in answer.content["detail"]


@pytest.mark.parametrize(("content", "suffix"), [
    (b"PK\x03\x04" + bytes(100), ""),
    (PICTURE[:60], ""),
    (b"\x1f\x8b" + bytes(50), ".nii.gz"),
    (bytes(128) + b"DICM" + MARKER.encode(), ""),
    (b"text of " + MARKER.encode(), ""),
])  # fmt: skip
def test_what_cannot_be_read_is_one_sentence_without_a_path(
    pictures: RunAnswers, ask: Callable[..., Answer], tmp_path: Path, content: bytes, suffix: str
) -> None:
    answer = ask(pictures, content, suffix=suffix)
    assert answer.status == 422
    reason = answer.content["detail"]
    assert reason
    assert str(tmp_path) not in reason
    assert MARKER not in reason
    assert "on_bad" not in reason


def test_a_scan_of_another_nature_needs_a_word(
    pictures: RunAnswers, ask: Callable[..., Answer], tmp_path: Path
) -> None:
    pictures.scorer.expected = ExpectedInput({"kinds": {"volume": 3}})
    answer = ask(pictures, PICTURE)
    assert answer.content["detail"].endswith("; anyway=1 scores it")
    (tmp_path / "upload").rename(tmp_path / "former")
    assert ask(pictures, PICTURE, anyway=True).content["remarks"][0].startswith("unlike the training scans")


def bomb(pixels: int) -> bytes:
    """A small file that claims to be large."""
    return png(np.zeros((pixels, pixels), np.uint8))


def test_larger_scans_than_the_server_takes_are_refused_by_their_header(
    pictures: RunAnswers, ask: Callable[..., Answer], tmp_path: Path
) -> None:
    pictures.scorer.refuse_above(100 * 100)
    assert "limit" in ask(pictures, bomb(101)).content["detail"]
    (tmp_path / "upload").rename(tmp_path / "former")
    volume = nibabel.Nifti1Image(np.zeros((30, 30, 30), np.uint8), np.eye(4)).to_bytes()
    assert "27000 voxels" in ask(pictures, volume, suffix=".nii").content["detail"]


def test_a_file_of_a_million_frames_is_refused(
    pictures: RunAnswers, ask: Callable[..., Answer], tmp_path: Path
) -> None:
    frames = chest(np.zeros((8, 8), np.uint8), NumberOfFrames=10**6)
    answer = ask(pictures, save(frames, tmp_path / "frames").read_bytes())
    assert answer.status == 422
    (tmp_path / "upload").rename(tmp_path / "former")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header["dim"][:5] = [4, 8, 8, 8, 32767]
    header["pixdim"][:4] = 1
    answer = ask(pictures, header.binaryblock + bytes(10), suffix=".nii")
    assert answer.status == 422


def series(folder: Path, **elements: Any) -> list[bytes]:
    return [path.read_bytes() for path in write_dicom_series(folder, STORED, **(NEEDED | elements))]


def test_the_files_of_a_series_are_one_scan(volumes: RunAnswers, ask: Callable[..., Answer], tmp_path: Path) -> None:
    files = series(tmp_path / "series")
    assert ask(volumes, *files).content["score"] == volumes.scorer.score(tmp_path / "series").score


def test_files_that_are_no_series_are_refused(volumes: RunAnswers, ask: Callable[..., Answer], tmp_path: Path) -> None:
    files = series(tmp_path / "series")
    assert "no DICOM slices" in ask(volumes, *files, PICTURE).content["detail"]
    (tmp_path / "upload").rename(tmp_path / "former")
    other = series(tmp_path / "other", SeriesInstanceUID="1.2.3.4.5")
    assert "2 scans" in ask(volumes, *files, *other).content["detail"]


def where_highest(values: np.ndarray, place: SimpleITK.Image) -> tuple[float, ...]:
    """The place in mm of the highest value of [slices, rows, columns]."""
    z, y, x = np.unravel_index(values.argmax(), values.shape)
    return place.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))


def test_maps_lie_over_the_scan_for_any_viewer(volumes: RunAnswers, ask: Callable[..., Answer], tmp_path: Path) -> None:
    """The brightest voxel is the most anomalous: a DICOM reader of others finds both at one place in the patient."""
    files = series(tmp_path / "series")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    scan = reader.Execute()
    brightest = where_highest(SimpleITK.GetArrayFromImage(scan), scan)

    answer = ask(volumes, *files, wanted="nifti")
    assert answer.file is not None
    nifti = SimpleITK.ReadImage(str(answer.file))
    assert where_highest(SimpleITK.GetArrayFromImage(nifti), nifti) == pytest.approx(brightest, abs=1e-3)

    (tmp_path / "upload").rename(tmp_path / "former")
    answer = ask(volumes, *files, wanted="dicom")
    assert answer.file is not None, answer.content
    written = pydicom.dcmread(answer.file)
    assert written.SOPClassUID.name == "Parametric Map Storage"
    assert written.FrameOfReferenceUID == "1.2.3.4"
    frames = np.frombuffer(written.FloatPixelData, "<f4").reshape(-1, written.Rows, written.Columns)
    shared = written.SharedFunctionalGroupsSequence[0]
    measures, plane = shared.PixelMeasuresSequence[0], shared.PlaneOrientationSequence[0]
    groups = written.PerFrameFunctionalGroupsSequence  # in any order: each frame says where it lies
    positions = [np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) for group in groups]
    across, down = np.array(plane.ImageOrientationPatient, float).reshape(2, 3)
    upwards = np.argsort([position @ np.cross(across, down) for position in positions])
    frames = frames[upwards]
    image = SimpleITK.GetImageFromArray(frames)
    image.SetOrigin(positions[upwards[0]].tolist())
    image.SetSpacing([float(measures.PixelSpacing[1]), float(measures.PixelSpacing[0]), 2.0])
    image.SetDirection(np.stack([across, down, np.cross(across, down)], 1).ravel().tolist())
    assert where_highest(frames, image) == pytest.approx(brightest, abs=1e-3)
    over = SimpleITK.Resample(image, scan, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    assert np.array_equal(SimpleITK.GetArrayFromImage(over), frames)


def test_the_picture_of_a_volume_is_its_hottest_slice(volumes: RunAnswers, tmp_path: Path) -> None:
    series(tmp_path / "series")
    scored = volumes.scorer.score(tmp_path / "series")
    shown = overlaid(scored)
    assert shown.shape == (24, 20, 3)
    assert scored.map_seen is not None
    axis = scored.cut.across or 0
    hottest = int(np.moveaxis(scored.map_seen, axis, 0).max((1, 2)).argmax())
    assert hottest in (1, 2)


def test_one_slice_is_a_volume_and_gets_a_dicom_map(
    volumes: RunAnswers, ask: Callable[..., Answer], tmp_path: Path
) -> None:
    alone = save(dicom_slice(STORED[2], **NEEDED), tmp_path / "alone").read_bytes()
    answer = ask(volumes, alone, wanted="dicom")
    assert answer.status == 200, answer.content
    (tmp_path / "upload").rename(tmp_path / "former")
    volume = nibabel.Nifti1Image(STORED.T.astype(np.int16), np.diag([-1, -1, 1, 1])).to_bytes()
    assert "not DICOM" in ask(volumes, volume, wanted="dicom", suffix=".nii").content["detail"]
