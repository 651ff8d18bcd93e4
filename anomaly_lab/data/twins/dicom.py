"""Synthetic twin of a folder of DICOM files: small CT heads in HU, half of the series with a known haemorrhage.

One patient in three has two series. The files are as irregular as real ones: names without suffix in random order;
series without preamble, compressed (RLE, JPEG 2000), oblique, with a tilted gantry, with padding outside the field of
view, with a different rescale slope in each slice, or declared as MONOCHROME1. These variants are equally frequent in
both classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from anomaly_lab.data.twins.drawing import ellipse, smooth_noise, soft_step

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

PADDING = -2000  # stored value outside the circular field of view
SLICES = (10, 14)  # range of the number of slices
SIDES = (44, 56)  # range of rows and columns
_SLICES_A_SERIES = 8  # number of series = size / this: a size of 200 gives 25 series
_VARIANTS = ("plain", "rle", "padded", "bare", "oblique", "j2k", "slopes", "inverse", "tilted")


class _Volume(NamedTuple):
    """hu: float32 [Z, H, W]. lesion: bool [Z, H, W]. spacing: between slices, rows and columns, in mm."""

    hu: np.ndarray
    lesion: np.ndarray
    spacing: tuple[float, float, float]


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `normal/NNN/…`, `anomalous/NNN/…`, `masks/anomalous/NNN.nii.gz` and a file that is not DICOM.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each series depends on (seed, its number) only.
        size: approximate number of slices; at least eight series are written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=8)
        ...     sorted(path.name for path in (Path(folder) / "anomalous").iterdir())
        ['001', '003', '005', '007']
    """
    for number in range(max(8, size // _SLICES_A_SERIES)):
        rng = np.random.default_rng([seed, number])
        anomalous = number % 2 == 1
        name = f"{'anomalous' if anomalous else 'normal'}/{number:03d}"
        volume = _head(rng, anomalous)
        affine = _write_series(root / name, rng, volume, (seed, number))
        if anomalous:
            _write_mask(root / "masks" / f"{name}.nii.gz", volume.lesion, affine)
    (root / "LICENSE").write_text("Synthetic; no patient is in these files.\n", encoding="utf-8")


def _head(rng: np.random.Generator, anomalous: bool) -> _Volume:
    """Draw a skull in air, tapering to both ends, with brain, ventricles and, if anomalous, blood."""
    depth, side = int(rng.integers(*SLICES)), int(rng.integers(*SIDES))
    gap, pixel = float(rng.choice([5.0, 6.0])), round(rng.uniform(3.6, 4.2), 3)
    centre = side / 2 + rng.normal(0, 1, 2)
    wide, turn = side * rng.uniform(0.33, 0.38), rng.normal(0, 0.08)
    brain, ventricles = rng.uniform(28, 40), rng.uniform(0.12, 0.24)
    texture = [smooth_noise(rng, (side, side), 8) for _ in range(3)]
    blood = _bleeding(rng, depth, centre, wide) if anomalous else None
    hu, lesion = np.empty((depth, side, side), np.float32), np.zeros((depth, side, side), bool)
    for z in range(depth):
        taper = np.sqrt(1 - (0.75 * (2 * z / (depth - 1) - 1)) ** 2)
        radius = ellipse((side, side), tuple(centre), (wide * taper * 1.2, wide * taper), turn)
        mix = texture[0] * np.cos(z / 3) + texture[1] * np.sin(z / 3)
        plane = brain + 5 * mix
        for offset in (-1, 1):
            horn = ellipse(
                (side, side), (centre[0], centre[1] + offset * 0.2 * wide), (0.5 * wide, ventricles * wide), turn
            )
            plane = plane + (8 - plane) * soft_step(taper * 0.9 - horn, 0.3)
        if blood is not None:
            cover = soft_step(1 - blood.distance(z, (side, side)) + 0.15 * texture[2], 0.2) * (radius < 0.86)
            plane, lesion[z] = plane + blood.contrast * cover, cover > 0.5
        plane = np.where(radius < 0.88, plane, 900 + 60 * mix)
        plane = plane + (-1000 - plane) * soft_step(radius - 1, 0.04)
        hu[z] = plane + rng.normal(0, 6, plane.shape).astype(np.float32)
    return _Volume(hu, lesion, (gap, pixel, pixel))


class _Blood(NamedTuple):
    """An ellipsoid: centre in slices and pixels, radii in slices and pixels, contrast in HU."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    contrast: float

    def distance(self, z: int, shape: tuple[int, int]) -> np.ndarray:
        """Return the relative distance of each pixel of slice `z` from the centre, [H, W]; 1 at the surface."""
        plane = ellipse(shape, self.centre[1:], self.radii[1:])
        return np.asarray(np.hypot(plane, (z - self.centre[0]) / self.radii[0]))


def _bleeding(rng: np.random.Generator, depth: int, centre: np.ndarray, wide: float) -> _Blood:
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.5) * wide
    place = (depth * rng.uniform(0.3, 0.7), centre[0] + far * np.sin(angle), centre[1] + far * np.cos(angle))
    long, short = rng.uniform(0.25, 0.5, 2) * wide
    return _Blood(place, (rng.uniform(2.2, 3.5), long, short), rng.uniform(15, 45))


def _write_series(folder: Path, rng: np.random.Generator, volume: _Volume, seed: tuple[int, int]) -> np.ndarray:
    """Write every slice to a file; return the affine of the volume [columns, rows, slices] to mm (RAS+)."""
    folder.mkdir(parents=True)
    variant = _VARIANTS[seed[1] // 2 % len(_VARIANTS)]  # independent of the label, which is the parity
    right, down, step = _axes(rng, variant, volume.spacing[0])
    origin = np.round(rng.uniform(-120, -80, 3), 3)
    depth = len(volume.hu)
    names = rng.permutation(depth)
    for z in range(depth):
        place = origin + z * step
        dataset = _slice(volume, z, variant, seed)
        dataset.ImagePositionPatient = [f"{x:.6f}" for x in place]
        dataset.ImageOrientationPatient = [f"{x:.8f}" for x in (*right, *down)]
        _save(dataset, folder / f"IM{names[z]:05d}", variant)
    lps = np.eye(4)
    lps[:3] = np.stack([right * volume.spacing[2], down * volume.spacing[1], step, origin], axis=1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _axes(rng: np.random.Generator, variant: str, gap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the directions of rows and columns, and the step from slice to slice in mm."""
    right, down = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    tilt = rng.uniform(0.1, 0.2)
    if variant in {"oblique", "tilted"}:
        down = np.array([0, np.cos(tilt), -np.sin(tilt)])
    if variant == "oblique":
        right = np.array([np.cos(tilt), np.sin(tilt) * np.sin(tilt), np.sin(tilt) * np.cos(tilt)])
    normal = np.cross(right, down)
    return right, down, np.array([0, 0, gap]) if variant == "tilted" else normal * gap


def _slice(volume: _Volume, z: int, variant: str, seed: tuple[int, int]) -> FileDataset:
    """Return slice `z` as a DICOM data set, without its position in space."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def uid(*of: object) -> UID:
        return generate_uid(entropy_srcs=["anomaly_lab", *map(str, (seed[0], *of))])

    number = seed[1]
    patient = number - 2 * (number % 8 in {2, 3})  # series 0 and 2 belong to one patient, as do 1 and 3, 8 and 10, …
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid("slice", number, z)
    dataset = FileDataset("", {}, file_meta=meta, preamble=None if variant == "bare" else b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.InstanceNumber = "CT", 1  # the same number in all slices: it must not determine the order
    dataset.PatientName, dataset.PatientID = f"Synthetic^{patient}", f"SYN{patient:05d}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study", number), uid("series", number)
    dataset.SliceThickness, dataset.PixelSpacing = volume.spacing[0], list(volume.spacing[1:])
    dataset.WindowCenter, dataset.WindowWidth = [40, 600], [80, 2800]
    dataset.WindowCenterWidthExplanation = ["BRAIN", "BONE"]
    _fill(dataset, volume.hu[z], z, variant)
    return dataset


def _fill(dataset: FileDataset, hu: np.ndarray, z: int, variant: str) -> None:
    """Set the pixel data and the elements that describe them."""
    slope, intercept = (1 + z % 3, -1024) if variant == "slopes" else (1, 0 if variant == "padded" else -1024)
    stored = np.rint((np.clip(hu, -1024, 3071) - intercept) / slope).astype(np.int16)
    if variant == "padded":
        radius = ellipse(hu.shape, (hu.shape[0] / 2, hu.shape[1] / 2), (hu.shape[0] / 2, hu.shape[1] / 2))
        stored[radius > 1] = PADDING
        dataset.add_new("PixelPaddingValue", "SS", PADDING)
    signed = stored.min() < 0
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.PixelRepresentation = 1, 16, int(signed)
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.PhotometricInterpretation = "MONOCHROME1" if variant == "inverse" else "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _save(dataset: FileDataset, path: Path, variant: str) -> None:
    from pydicom.uid import JPEG2000Lossless, RLELossless

    if variant == "rle":
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif variant == "j2k":
        dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    if variant == "bare":  # like some archives: neither preamble nor file meta information
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    else:
        dataset.save_as(path, enforce_file_format=True)


def _write_mask(path: Path, lesion: np.ndarray, affine: np.ndarray) -> None:
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    make: Any = nib.Nifti1Image  # nibabel leaves it untyped
    nib.save(make(lesion.transpose(2, 1, 0).astype(np.uint8), affine), path)
