"""Small DICOM files made on the spot, every identifying element filled with a marker."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

MARKER = "Marker"  # in every element that could tell who somebody is
UID = "1.2.826.0.1.77777"  # beginning of every UID of an instance, series or study
IDENTIFYING = (
    "PatientName",
    "PatientID",
    "StudyDescription",
    "SeriesDescription",
    "InstitutionName",
    "ReferringPhysicianName",
)


def dicom_slice(pixels: np.ndarray, z: float = 0.0, **elements) -> FileDataset:
    """A CT slice of stored `pixels` [rows, columns] at height `z`; elements replace or add, None takes away."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix=f"{UID}.")
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    for keyword in IDENTIFYING:
        setattr(dataset, keyword, f"{MARKER}^{keyword}" if "Name" in keyword else f"{MARKER} {keyword}")
    dataset.PatientBirthDate, dataset.Modality = "19010203", "CT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{UID}.1", f"{UID}.2"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [-10, -20, z], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.75], 2
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    set_pixels(dataset, pixels)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def set_pixels(dataset: Dataset, pixels: np.ndarray) -> None:
    dataset.Rows, dataset.Columns = (
        pixels.shape[:2] if pixels.ndim == 3 and pixels.shape[-1] == 3 else pixels.shape[-2:]
    )
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_dicom_series(folder: Path, stored: np.ndarray, gap: float = 2.0, shuffle: int = 0, **elements) -> list[Path]:
    """A file for each slice of [Z, rows, columns], named in an order that `shuffle` draws."""
    names = np.random.default_rng(shuffle).permutation(len(stored))
    slices = [dicom_slice(pixels, z * gap, **elements) for z, pixels in enumerate(stored)]
    return [save(dataset, folder / f"{names[z]:03d}") for z, dataset in enumerate(slices)]


def chest(pixels: np.ndarray, **elements) -> FileDataset:
    """A single picture, with no place in space and no rescale."""
    away = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
    return dicom_slice(pixels, **(dict.fromkeys(away) | {"Modality": "DX"} | elements))


def enhanced(stored: np.ndarray, heights: list[float], slopes: list[float]) -> FileDataset:
    """A multi-frame file: shared orientation and spacing, position and slope of each frame."""
    dataset = dicom_slice(stored[0], RescaleSlope=None, RescaleIntercept=None, ImagePositionPatient=None)
    del dataset.ImageOrientationPatient, dataset.PixelSpacing
    set_pixels(dataset, stored)
    dataset.NumberOfFrames = len(stored)
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 2
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for height, slope in zip(heights, slopes, strict=True):
        frame, position, values, window = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-10, -20, height]
        values.RescaleSlope, values.RescaleIntercept = slope, 0
        window.WindowCenter, window.WindowWidth = 7, 9
        frame.PlanePositionSequence, frame.FrameVOILUTSequence = Sequence([position]), Sequence([window])
        frame.PixelValueTransformationSequence = Sequence([values])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return dataset
