"""Synthetic twin of RSNA: DICOM chest X-rays with opacities, which have boxes, and other findings, which have none."""

from __future__ import annotations

import uuid
from pathlib import Path

import cv2
import numpy as np

from anomaly_lab.data.twins.chest import add_noise, draw_chest, draw_effusion, draw_opacity

SIDE = 128  # side in pixels; 1024 in the real data set
_CLASSES = ("Normal",) * 12 + ("Lung Opacity",) * 5 + ("No Lung Opacity / Not Normal",) * 3
_MONOCHROME1_SHARE = 0.05  # the real files are all MONOCHROME2, but the reader must support both


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` pictures in the official layout, 60 % of them normal.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each picture depends on (seed, its number) only.
        size: number of pictures.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=3)
        ...     len(list((Path(folder) / "stage_2_train_images").glob("*.dcm")))
        3
    """
    pictures = root / "stage_2_train_images"
    pictures.mkdir(parents=True)
    labels, classes = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for number in range(size):
        rng = np.random.default_rng([seed, number])
        class_name = _CLASSES[7 * number % len(_CLASSES)]
        patient = str(uuid.UUID(bytes=rng.bytes(16), version=4))
        image, boxes = _picture(rng, class_name)
        _save(pictures / f"{patient}.dcm", image, inverted=rng.random() < _MONOCHROME1_SHARE)
        labels += [f"{patient},{x:.1f},{y:.1f},{w:.1f},{h:.1f},1" for x, y, w, h in boxes] or [f"{patient},,,,,0"]
        classes += [f"{patient},{class_name}"] * max(1, len(boxes))
    for name, lines in (("train_labels", labels), ("detailed_class_info", classes)):
        (root / f"stage_2_{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _picture(rng: np.random.Generator, class_name: str) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Draw a picture, uint8 [H, W], and return it with the boxes (x, y, width, height) of its opacities."""
    other = class_name == "No Lung Opacity / Not Normal"
    chest = draw_chest(rng, (SIDE, SIDE), heart=rng.uniform(1.3, 1.7) if other and rng.random() < 0.5 else 1.0)
    if other and rng.random() < 0.5:
        chest, _ = draw_effusion(rng, chest)
    boxes: list[tuple[int, int, int, int]] = []
    while class_name == "Lung Opacity" and len(boxes) < 3 and (not boxes or rng.random() < 0.5):
        clouded, mask = draw_opacity(rng, chest)
        if mask.any():
            chest = clouded
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            boxes.append((x, y, width, height))
    return add_noise(rng, chest.image), boxes


def _save(path: Path, image: np.ndarray, inverted: bool) -> None:
    """Write an anonymous 8-bit DICOM file; `inverted` stores it as MONOCHROME1, where high values are dark."""
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    picture, study, series = (generate_uid(entropy_srcs=[path.stem, level]) for level in ("picture", "study", "series"))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = picture
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientName = dataset.PatientID = ""
    dataset.Modality, dataset.BodyPartExamined = "CR", "CHEST"
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.PixelData = (255 - image if inverted else image).tobytes()
    dcmwrite(path, dataset, enforce_file_format=True)
