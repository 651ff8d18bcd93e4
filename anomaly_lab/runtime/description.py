"""`export.json`, beside an exported model, says what the model does not: how a scan becomes patches, what scores mean.

An export may come from elsewhere, so that everything in the file is checked.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from anomaly_lab.experiment.json_types import check
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import Channels, FolderName, Fraction, Range, UserError

FILE = "export.json"
VERSION = 1  # of what stands in it
LARGEST = 2**24  # bytes of the file
Output = Literal["score", "map", "probabilities"]
Side = Annotated[int, Range("[1, 65536]")]
Whole = Annotated[int, Range("[0, 1000000000000]")]


class Model(TypedDict):
    """The file of the model, which takes float32 patches [B, C, *S] in [-1, 1]."""

    file: Annotated[str, FolderName()]
    format: Literal["onnx", "pt2"]
    bytes: Whole
    sha256: str
    outputs: list[Output]  # score [B], map [B, 1, *S], probabilities [B, K]
    batch: Annotated[int, Range("[1, 65536]")] | None  # number of patches it takes at a time; null for any


class Patches(TypedDict):
    """What the model takes."""

    channels: Channels
    size: list[Side]
    bits: Literal[8, 16]  # to which pixels are rounded before they are scaled to [-1, 1]


class PictureRules(TypedDict):
    """How the values of a picture are read: white, and the largest number of pixels."""

    range: float | None
    max_pixels: Whole
    size: list[Side] | None
    fit: Literal["pad", "stretch"]


class VolumeRules(TypedDict):
    """How volumes are brought to a common space and intensity range, see `data.volume`."""

    axcodes: str
    spacing: list[float] | None
    window: list[float] | Literal["scan"] | None
    zscore: float | None
    percentiles: list[float] | None
    foreground_above: float | None
    max_voxels: Whole


class Slices(TypedDict, total=False):
    """What exports of older versions lack."""

    slices: list[float] | None  # first and last that count, of a volume, as PatchSampling.slices


class Windows(Slices):
    """Which windows of a scan become patches, and which of them count for its score."""

    overlap: Annotated[float, Range("[0, 1)")]
    plane: Literal["axial", "coronal", "sagittal"]
    foreground: Fraction
    counted: Fraction


class Stitching(TypedDict):
    """How the scores of a scan's windows become one: max, mean, or the mean of the `top_k` highest."""

    rule: Literal["none", "max", "mean", "top_k"]
    top_k: Annotated[int, Range("[1, 1000000000]")]


class Ends(TypedDict):
    """Smallest and largest value of the ends of the training scans' intensity ranges, and of where they begin."""

    low: list[float]
    high: list[float]
    start: list[float]


class Expected(TypedDict, total=False):
    """What the run was trained on."""

    kinds: dict[str, Whole]
    modalities: dict[str, Whole]
    bits: Whole
    channels: Whole
    size: list[list[float]]
    spacing: list[list[float]]
    range: Ends


class Reference(TypedDict):
    """What the score of a new scan is compared with, by `normals` and `threshold`."""

    says: str  # number and kind of the normals, such as "12 validation scans"
    scale: list[float] | None  # scores of single windows that a map of scores shows as 0 and 1


class Later(TypedDict, total=False):
    """What exports of older versions lack."""

    reference: Reference


class Description(Later):
    """The content of export.json."""

    version: Literal[1]
    model: Model
    patches: Patches
    crop: Literal["none", "foreground", "head", "breast", "fundus", "margins"]
    picture: PictureRules
    volume: VolumeRules
    windows: Windows | None
    stitching: Stitching
    threshold: float | None
    purpose: str | float | None
    normals: list[float]  # scores of the validation normals, sorted; of scans cut into windows the maxima of these
    classes: list[str]
    expected: Expected
    meaning: str
    caveats: list[str]
    equality: dict[str, Any]
    run: dict[str, Any]


def place(source: str | Path) -> Path | None:
    """Return the folder of an export, given itself, its model or its description; None if it is no export.

    Examples:
        >>> place("runs") is None
        True
    """
    path = Path(source)
    if path.is_dir():
        return path if (path / FILE).is_file() else None
    return path.parent if path.name == FILE or path.suffix in (".onnx", ".pt2") else None


def read(folder: Path) -> Description:
    """Read and check the description of an export.

    Raises:
        UserError: it is missing, damaged or of another version of the package.

    Examples:
        >>> read(Path("export"))["threshold"]  # doctest: +SKIP
        0.31
    """
    path = folder / FILE
    try:
        if regular(path).stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        content: Any = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        if isinstance(content, dict) and content.get("version") != VERSION:
            raise ValueError(f"it is of version {str(content.get('version'))[:20]}, this package reads {VERSION}")
        check(content, Description)
        _check_lengths(content)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; keep the model and its {FILE} together, or export the run again"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({_in_short(error)}); export the run again: make export RUN=…"
        ) from error
    description: Description = content
    return description


def model_of(folder: Path, description: Description) -> bytes:
    """Read the model that a description speaks of.

    Raises:
        UserError: it is missing or another file.

    Examples:
        >>> model_of(Path("export"), read(Path("export")))[:4]  # doctest: +SKIP
    """
    facts = description["model"]
    path = folder / facts["file"]
    try:
        whole = regular(path).stat().st_size == facts["bytes"]
        content = path.read_bytes() if whole else b""
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; keep the model and its {FILE} together") from error
    if not whole or hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise UserError(f"{path} is not the model that {FILE} describes (its SHA-256 differs); export the run again")
    return content


def _check_lengths(content: Description) -> None:
    """Check what types do not say: numbers of values, and their order."""
    expected, normals, windows = content["expected"], content["normals"], content["windows"]
    pairs = [*expected.get("spacing", []), *expected.get("size", []), *expected.get("range", {}).values()]
    faults = {
        "patches.size": len(content["patches"]["size"]) not in (2, 3),
        "picture.size": len(content["picture"]["size"] or [1, 1]) != 2,
        "normals": normals != sorted(normals),
        "windows.slices": windows is not None and len(windows.get("slices") or [0, 1]) != 2,
        "reference.scale": "reference" in content and len(content["reference"]["scale"] or [0, 1]) != 2,
        "model.outputs": content["model"]["outputs"][:1] != ["score"]
        or len(set(content["model"]["outputs"])) < len(content["model"]["outputs"]),
        "expected": any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs),
    }
    for key, wrong in faults.items():
        if wrong:
            raise ValueError(f"{key} is not what a {FILE} says")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
