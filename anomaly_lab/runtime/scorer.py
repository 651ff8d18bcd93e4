"""Score new scans with an exported model: what `pipeline.scorer` does for a run, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly_lab.data.expected_input import ExpectedInput
from anomaly_lab.data.preprocessing.patches import PatchSampling, shares
from anomaly_lab.data.preprocessing.transforms import Picture, Preprocessing, Volume, centred
from anomaly_lab.data.readers.pictures import as_picture
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.store.plan import CutScan, StorePlan
from anomaly_lab.evaluation.maps import whole_map
from anomaly_lab.evaluation.stitching import Rule, case_scores, score_maps
from anomaly_lab.runtime import description as descriptions
from anomaly_lab.runtime.description import Description
from anomaly_lab.runtime.onnx_file import refuse_external
from anomaly_lab.runtime.resizing import resized
from anomaly_lab.types import Case, UserError

TOGETHER = 64  # patches that are scored at a time
_ARRAY = Case("array", "", Path(), label=0)
_VOLUME = Case("array", "", Path("array.nii"), label=0)  # whatever it was read from: as of a NIfTI file


@dataclass(frozen=True)
class ScoredArray:
    """A scan with its score and anomaly map.

    Attributes:
        score: raw score; higher = more anomalous.
        p_value: conformal p-value, (1 + number of validation normals that score at least as high) / (1 + number of
            validation normals), see `ExportScorer.reference`; None if there are none.
        is_anomalous: whether the score exceeds the threshold; None if there is none.
        anomaly_map: on the grid of the array: float32 [H, W] or [*S]; None if the detector has no map and the scan only
            one window.
        probabilities: of the run's classes, [K], the mean over the windows that count; None if it has none.
        remarks: what to know of the score: how the scan differs from the training's.
    """

    score: float
    p_value: float | None
    is_anomalous: bool | None
    anomaly_map: NDArray[np.float32] | None
    probabilities: NDArray[np.float64] | None = None
    remarks: tuple[str, ...] = ()


class ExportScorer:
    """Scores new scans with an export; usually created by `anomaly_lab.load`.

    Args:
        description: content of export.json.
        model: content of the ONNX file.
        threads: that the model takes at most; 0 leaves it to onnxruntime, which takes a thread for each core.

    Attributes:
        description: what export.json says.
        threshold: scores above it are called anomalous; None if there is none, of which `caveats` says why.
        normals: scores of the validation normals, or the maxima of validation scans cut into windows, sorted, [n].
        reference: number and kind of these, such as "12 validation scans".
        classes: names of the K classes that the detector has learnt; empty for a one-class detector.
        caveats: what must be read beside its scores.

    Examples:
        >>> scorer = ExportScorer.open("export")  # doctest: +SKIP
        >>> scorer.score(np.zeros((64, 64), np.uint8)).p_value  # doctest: +SKIP
        0.1
    """

    def __init__(self, description: Description, model: bytes, threads: int = 0) -> None:
        self.description = description
        self.threshold = description["threshold"]
        self.normals = np.array(description["normals"], np.float64)
        reference = description.get("reference")
        is_cut = description["windows"] is not None or {*(description["expected"].get("kinds") or ())} - {"picture"}
        if reference is None and is_cut and description["stitching"]["rule"] == "none":
            raise UserError(
                f"{descriptions.FILE} is of an older version and has the scores of windows only, with which the score "
                "of a scan cannot be compared; export the run again: make export RUN=…"
            )
        self.reference = f"{len(self.normals)} validation normals" if reference is None else reference["says"]
        self._scale = None if reference is None else reference["scale"]
        if reference is None and self.threshold is not None and len(self.normals):
            self._scale = [float(self.normals[0]), self.threshold]
        self.classes, self.caveats = tuple(description["classes"]), tuple(description["caveats"])
        try:
            self._plan, self._counted = _plan(description)
            self._slices = PatchSampling(slices=_slices(description))
        except (ValueError, TypeError, UserError) as error:
            raise UserError(
                f"{descriptions.FILE} says what cannot be ({error}); export the run again: make export RUN=…"
            ) from error
        volume = self._plan.preprocessing.volume
        self._expected = ExpectedInput(description["expected"], scaled=volume.window is None)
        self._session = _session(description, model, threads)

    @classmethod
    def open(cls, source: str | Path, threads: int = 0) -> ExportScorer:
        """Create the scorer of an export.

        Args:
            source: its folder, its model or its export.json.
            threads: see the class.

        Raises:
            UserError: it is no export, one of its files is missing, damaged or of another version, or onnxruntime is
                not installed.
        """
        folder = descriptions.place(source)
        if folder is None:
            raise UserError(f"{source} is no export: it has no {descriptions.FILE}")
        description = descriptions.read(folder)
        file = description["model"]["file"]
        if description["model"]["format"] != "onnx":
            raise UserError(
                f"{folder / file}: a pt2 file is for programs with torch (torch.export.load); to score with "
                "anomaly_lab.load, export with FORMAT=onnx"
            )
        model = descriptions.model_of(folder, description)
        refuse_external(model, str(folder / file))
        return cls(description, model, threads)

    def score(self, source: ArrayLike, affine: ArrayLike | None = None, anyway: bool = False) -> ScoredArray:
        """Score one scan.

        Args:
            source: a picture [H, W] or [H, W, 3] of uint8, uint16, or floats in [0, 1]; or a volume [*S] of any real
                type, with its `affine`.
            affine: [4, 4], maps voxel indices of a volume to mm with axes right, anterior, superior (RAS+).
            anyway: score a scan of another nature than those of the training.

        Raises:
            UserError: the array is no picture or volume, is of another nature than the training scans, or its score is
                not finite; or the preprocessing needs a package that is not installed, such as nibabel for volumes.
        """
        with _packages():
            return self._scored(np.asarray(source), affine, anyway)

    def prepare(self, source: ArrayLike, affine: ArrayLike | None = None) -> NDArray[np.float32]:
        """Return the patches that the model would be given for a scan, float32 [n, C, *S] in [-1, 1]; see `score`."""
        with _packages():
            cut = self._cut(self._scan(np.asarray(source), affine))
            return np.concatenate([centred(block) for block, _ in cut.blocks()])

    def _scored(self, source: NDArray[Any], affine: ArrayLike | None, anyway: bool) -> ScoredArray:
        scan = self._scan(source, affine)
        objections = self._expected.objections(_ARRAY if affine is None else _VOLUME, scan)
        if objections and not anyway:
            raise UserError(
                f"not scored, since its score would mean nothing: {'; '.join(objections)}; anyway=True scores it"
            )
        cut = self._cut(scan)
        outputs = self.outputs(np.concatenate([centred(block) for block, _ in cut.blocks()]))
        scores, maps, classes = outputs["score"].astype(np.float64), outputs.get("map"), outputs.get("probabilities")
        counts = self._counting(cut)
        rule, k = self.description["stitching"]["rule"], self.description["stitching"]["top_k"]
        combined: Rule = "max" if rule == "none" else rule
        score = float(case_scores(scores[counts], np.zeros(counts.sum(), int), combined, k)[1][0])
        if not np.isfinite(score) or not (maps is None or np.isfinite(maps).all()):
            raise UserError("its score or map is not finite: the detector gave no number for this scan")
        if maps is None and len(scores) > 1:
            maps = score_maps(scores, self._plan.patch_size, *self._zero_and_one(scores[counts]))
        elif maps is not None:
            maps = maps[:, 0]
        at_least = len(self.normals) - np.searchsorted(self.normals, score, side="left")
        return ScoredArray(
            score,
            float((1 + at_least) / (1 + len(self.normals))) if len(self.normals) else None,
            None if self.threshold is None else score > self.threshold,
            None if maps is None else self._carried_back(scan, cut, maps),
            None if classes is None else classes[counts].astype(np.float64).mean(0),
            tuple(f"unlike the training scans: {each}" for each in objections),
        )

    def _scan(self, source: NDArray[Any], affine: ArrayLike | None) -> Scan:
        """Return the array as a scan, cropped as the run's are."""
        if affine is None:
            rules = Picture(self.description["picture"]["range"], max_pixels=self.description["picture"]["max_pixels"])
            if source.ndim >= 2 and source.shape[0] * source.shape[1] > rules.max_pixels:
                raise UserError(f"it has {source.shape[0]}×{source.shape[1]} pixels, the limit is {rules.max_pixels}")
            scan = Scan(as_picture(source, self._plan.in_channels, rules))
        else:
            scan = Scan(_volume(source)[None], affine=_affine(affine))
        if self.description["crop"] == "none":
            return scan
        from anomaly_lab.data.preprocessing.crop import cropped  # with OpenCV and SciPy, which few exports need

        return cropped(scan, self.description["crop"])

    def _cut(self, scan: Scan) -> CutScan:
        return CutScan.of(self._plan, _ARRAY, self._plan.preprocessing(scan))

    def outputs(self, patches: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return the model's outputs by name, each [n, …], for patches [n, C, *S] in [-1, 1], some at a time."""
        names = self.description["model"]["outputs"]
        size = self.description["model"]["batch"] or TOGETHER
        parts = []
        for start in range(0, len(patches), size):
            block = patches[start : start + size]
            short = (self.description["model"]["batch"] or len(block)) - len(block)
            fed = np.concatenate([block, np.repeat(block[-1:], short, 0)]) if short else block
            try:
                outputs = self._session.run(names, {self._session.get_inputs()[0].name: fed})
            except Exception as error:  # of onnxruntime, which has its own for each fault
                raise UserError(f"the model failed ({' '.join(str(error).split())[:200]})") from error
            parts.append([output[: len(block)] for output in outputs])
        return {name: np.concatenate(blocks) for name, blocks in zip(names, zip(*parts, strict=True), strict=True)}

    def _counting(self, cut: CutScan) -> NDArray[np.bool_]:
        """Return which windows count for the score: as in the training, those of its slices with enough foreground."""
        counted = self._slices.inside(cut.windows.location, cut.scan.pixels.shape[1:], cut.across)
        if self._counted is not None and cut.scan.foreground is not None:
            counted = counted & (shares(cut.scan.foreground, cut.windows.location, cut.extent) >= self._counted)
        return counted if counted.any() else np.ones(len(counted), bool)

    def _zero_and_one(self, scores: NDArray[np.float64]) -> tuple[float, float]:
        """Return the scores that a map of scores shows as 0 and 1: lowest validation normal and threshold."""
        zero, one = self._scale or (float(scores.min()), float(scores.max()))
        return zero, one

    def _carried_back(self, scan: Scan, cut: CutScan, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stitch the maps of windows and bring them to the grid of the array."""
        bounded = bool(self._counted) and cut.scan.foreground is not None
        foreground = cut.scan.foreground[0] if bounded and cut.scan.foreground is not None else None
        whole = whole_map(maps, cut.windows.location, cut.scan.pixels.shape[1:], cut.across, foreground)
        if scan.affine is None:
            undone = self._plan.preprocessing.undo(whole, scan.shape)
            return undone if scan.origin is None else scan.origin.back(undone)
        from anomaly_lab.data.readers.geometry import onto  # with nibabel

        assert cut.scan.affine is not None
        own: NDArray[np.float32] = onto(whole[None], cut.scan.affine, *scan.own_grid)[0]
        return own


class _Preprocessing(Preprocessing):
    """The run's preprocessing, which resizes with numpy."""

    def _resized(self, pixels: NDArray[Any], size: Sequence[int], mode: str, antialias: bool) -> NDArray[Any]:
        assert mode == "bilinear", "only masks have another mode, and arrays have none"
        return resized(pixels, size, antialias)


def _plan(description: Description) -> tuple[StorePlan, float | None]:
    """Return how scans are prepared and cut, and the share of foreground of windows that count; None: all do."""
    rules: dict[str, Any] = dict(description["volume"])
    for key in ("spacing", "window", "percentiles"):
        rules[key] = tuple(rules[key]) if isinstance(rules[key], list) else rules[key]
    picture, windows, patches = description["picture"], description["windows"], description["patches"]
    size = picture["size"]
    sampling = windows and PatchSampling(
        overlap=windows["overlap"], plane=windows["plane"], foreground=windows["foreground"]
    )
    plan = StorePlan(
        name="export",
        root=Path(),
        cases=[],
        read=_no_files,
        preprocessing=_Preprocessing(None if size is None else tuple(size), picture["fit"], Volume(**rules)),
        patch_sampling=sampling,
        patch_size=tuple(patches["size"]),
        in_channels=patches["channels"],
        deep=lambda path: False,
        bits=patches["bits"],
    )
    return plan, windows and windows["counted"]


def _slices(description: Description) -> tuple[float, float] | None:
    windows = description["windows"]
    if windows is None or not (ends := windows.get("slices")):
        return None
    low, high = ends
    return low, high


def _no_files(case: Case) -> Scan:
    raise UserError(f"{case.image}: an export scores arrays")


def _session(description: Description, model: bytes, threads: int) -> Any:
    """Load the model on the CPU and compare it with its description."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("scoring an export needs onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of onnxruntime, which has its own for each fault
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{description['model']['file']} is no model that onnxruntime takes ({reason})") from error
    patches, batch = description["patches"], description["model"]["batch"]
    inputs, outputs = session.get_inputs(), [each.name for each in session.get_outputs()]
    wanted = [patches["channels"], *patches["size"]]
    fits = len(inputs) == 1 and inputs[0].type == "tensor(float)" and inputs[0].shape[1:] == wanted
    if not fits or (batch is not None and inputs[0].shape[0] != batch) or outputs != description["model"]["outputs"]:
        raise UserError(
            f"{description['model']['file']} is not the model that {descriptions.FILE} describes: it takes or returns "
            "something else; export the run again"
        )
    return session


def _volume(source: NDArray[Any]) -> NDArray[Any]:
    if source.ndim != 3 or not source.size or source.dtype.kind not in "uif":
        raise UserError(f"an array of shape {source.shape} and type {source.dtype} is no volume; pass [*S] of numbers")
    if not np.isfinite(source).all():
        raise UserError("the volume holds NaN or infinite voxels; replace them, such as by the value of air")
    if (low := source.min()) == source.max():
        raise UserError(f"every voxel is {low:g}, the volume is constant")
    return source


def _affine(affine: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(affine, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise UserError("affine takes an invertible matrix of 4×4 numbers, as NIfTI headers have one")
    return matrix


@contextmanager
def _packages() -> Iterator[None]:
    """Say which package a scan needs that pictures do without."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        remedies = {
            "nibabel": "volumes need nibabel: pip install nibabel",
            "monai": "the volume has another spacing than data.volume.spacing, and resampling needs monai and torch",
            "torch": "the volume has another spacing than data.volume.spacing, and resampling needs monai and torch",
            "cv2": "data.crop needs OpenCV and SciPy: pip install opencv-python-headless scipy",
            "scipy": "its map needs SciPy: pip install scipy",
        }
        if name not in remedies:
            raise
        raise UserError(f"it cannot be scored here: {remedies[name]}") from error
