"""Score new scans with a trained run, using its preprocessing, weights, threshold and validation normals.

The training data are not needed. If the detector has no anomaly map, one is made from its scores: windows are scored
across the scan, and each score fills its window.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.preprocessing.crop import cropped
from anomaly_lab.data.preprocessing.patches import shares
from anomaly_lab.data.preprocessing.transforms import Preprocessing, to_float
from anomaly_lab.data.readers.files import survey
from anomaly_lab.data.readers.geometry import onto
from anomaly_lab.data.readers.pictures import as_picture
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.store.plan import CutScan, StorePlan
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.map_score import MapScore
from anomaly_lab.evaluation.maps import whole_map
from anomaly_lab.evaluation.reference import Reference
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.evaluation.scoring import score_batches
from anomaly_lab.evaluation.stitching import Rule, case_scores, score_maps
from anomaly_lab.experiment import checkpoint_files, record, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.config import Evaluation
from anomaly_lab.metrics.thresholds import conformal_p_values
from anomaly_lab.pipeline.expected_input import ExpectedInput
from anomaly_lab.pipeline.training import construct
from anomaly_lab.types import Batch, Case, UserError

SETTINGS = ("data.store.scoring_batch_size",)  # what may be said otherwise of the run that scores
UNLIKE = "unlike the training scans"  # begins a remark on a scan of another nature
_TRAINING_REMEDY = re.compile(r",? or leave such files out with data\.store\.on_bad=skip")


@dataclass(frozen=True)
class ScoredScan:
    """A scan with its score and anomaly map.

    Attributes:
        case: the scan's paths and facts.
        score: raw score; higher = more anomalous.
        p_value: conformal p-value, (1 + number of validation normals that score at least as high) / (1 + number of
            validation normals), see `Scorer.reference`; None if there are none.
        is_anomalous: whether the score exceeds the threshold; None if there is none.
        scan: the scan as it was read.
        cut: the scan as the detector received it: preprocessed, with its windows.
        preprocessing: the preprocessing that was applied.
        map_seen: float32 [*S] on the preprocessed grid; None if the detector has no map and the scan only one window.
        remarks: what to know of the score: how the scan differs from the training's, why its mask is not there.
        probabilities: of the run's classes, [K], the mean over the windows that count; None if it has none.
        reconstruction_seen: float32 [C, *S] in [-1, 1] on the preprocessed grid, averaged where windows overlap, the
            scan itself where there is no window; None if the detector does not reconstruct.
    """

    case: Case
    score: float
    p_value: float | None
    is_anomalous: bool | None
    scan: Scan
    cut: CutScan
    preprocessing: Preprocessing
    map_seen: NDArray[np.float32] | None
    remarks: tuple[str, ...] = ()
    probabilities: NDArray[np.float64] | None = None
    reconstruction_seen: NDArray[np.float32] | None = None

    @cached_property
    def anomaly_map(self) -> NDArray[np.float32] | None:
        """Anomaly map on the original grid of the scan: float32 [H, W] for pictures, [*S] for volumes; or None.

        The map of a picture is upright, as the picture is shown.
        """
        if self.map_seen is None:
            return None
        if self.scan.affine is None:
            undone = self.preprocessing.undo(self.map_seen, self.scan.shape)
            return undone if self.scan.origin is None else self.scan.origin.back(undone)
        assert self.cut.scan.affine is not None
        own: NDArray[np.float32] = onto(self.map_seen[None], self.cut.scan.affine, *self.scan.own_grid)[0]
        return own


class NotScored(NamedTuple):
    """A scan without a score, and why it has none."""

    case: Case
    reason: str


class _Windows(NamedTuple):
    """A scan with its windows: their number, and which of them count for the score, [n]; remarks as in ScoredScan."""

    case: Case
    scan: Scan
    cut: CutScan
    number: int
    counted: NDArray[np.bool_]
    remarks: tuple[str, ...]


class _Scores(NamedTuple):
    """Of n windows: scores [n]; maps [n, *P], class probabilities [n, K] and reconstructions [n, C, *P], if any."""

    score: NDArray[np.float64]
    anomaly_map: NDArray[np.float32] | None
    probability: NDArray[np.float64] | None
    reconstruction: NDArray[np.float32] | None

    def of(self, windows: slice) -> _Scores:
        """Return what is known of a part of the windows."""
        maps, classes, drawn = self.anomaly_map, self.probability, self.reconstruction
        return _Scores(
            self.score[windows],
            None if maps is None else maps[windows],
            None if classes is None else classes[windows],
            None if drawn is None else drawn[windows],
        )


class Scorer:
    """Scores new scans with a trained and evaluated run; usually created by `Scorer.open`.

    Args:
        data: data set of the run, for the preprocessing; need not be set up.
        detector: detector with its trained weights.
        unit: how the scores of a scan's windows become one, `unit` of metrics.json.
        reference: what the scores of new scans are compared with.
        bits: bits per stored pixel, 8 or 16.

    Attributes:
        normals: scores of the reference: validation normals, or the maxima of validation scans cut into windows, [n].
        threshold: that they set; None if there are none, or too few: `reference.lacking` then says so.
        expected: the nature of the training scans; unless `open` found it, nothing is known of them and every scan is
            scored.
        classes: names of the K classes that the detector has learnt; empty for a one-class detector.

    Examples:
        >>> scorer = Scorer.open("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        >>> scorer.score("slice.png").p_value  # doctest: +SKIP
        0.1
    """

    def __init__(
        self,
        data: PatchDataModule,
        detector: Detector,
        unit: Mapping[str, Any],
        reference: Reference,
        bits: int,
    ) -> None:
        self.data, self.detector, self.reference, self._unit = data, detector, reference, unit
        self.normals = reference.normals
        self.expected = ExpectedInput({})
        self.classes: tuple[str, ...] = tuple(data.classes) if detector.supervised else ()
        self.threshold: float | None = reference.threshold["value"]
        self._plan = data.scoring_plan(bits)
        self._warned = False

    @property
    def of_arrays(self) -> str:
        """What to know of the scores of arrays in memory; empty if they are those of files with the same pixels."""
        setting = self.data.of_files_alone
        return (
            f"arrays are scored without {setting}, so that a file with the same pixels has another score"
            if setting
            else ""
        )

    @property
    def plan(self) -> StorePlan:
        """How new scans are prepared and cut."""
        return self._plan

    @classmethod
    def open(cls, path: str | Path, overrides: Sequence[str] = ()) -> Scorer:
        """Create the scorer of a run folder.

        Args:
            path: the run folder.
            overrides: `key=value` words, of the keys in SETTINGS alone.

        Raises:
            UserError: `path` is not a run folder, or the run is not trained far enough, or not wholly evaluated.
        """
        run = run_folder.open_run(str(path))
        metrics = record.read_metrics(run, needs=("threshold.value", "unit.rule", "unit.top_k"))
        if not metrics:
            raise UserError(f"{run} was never evaluated, so it has no threshold; run: make evaluate RUN={run}")
        facts = record.read_provenance(run, needs=("data",))
        if facts.get("evaluating"):
            raise UserError(
                f"{run}: its evaluation was interrupted or is under way, so score and threshold may be of two "
                f"evaluations; run: make evaluate RUN={run}"
            )
        config = configuration.recall(run / "config.yaml", overrides, SETTINGS)
        config.data.source = "twin"  # avoids looking for the training files, which are not needed
        data, detector = construct(config)
        load_weights(run, detector)
        if config.score.source == "map":
            detector.rescored = MapScore.load(configuration.score_rule_of(config), run)
        evaluation = configuration.evaluation_of(config)
        of_probabilities = metrics["threshold"].get("probabilities", bool(metrics.get("classes")))
        scores = replace(Scores.read(run / "scores.csv"), probabilities=of_probabilities)
        part = _part(data, evaluation, facts["data"].get("counts") or {})
        reference = Reference.of(scores, metrics, evaluation, part)
        bits = facts["data"].get("bits")
        if bits is None:  # a run of an older version
            bits = _bits_of_data(run, facts)
        scorer = cls(data, detector, metrics["unit"], reference, bits)
        scorer.expected = ExpectedInput(facts["data"].get("input") or {}, data.preprocessing.volume.window is None)
        now = record.read_provenance(run)
        if any(now.get(key) != facts.get(key) for key in ("evaluating", "evaluated", "checkpoint")):
            raise UserError(f"{run} was evaluated again while it was opened; give the command once more")
        return scorer

    def refuse_above(self, values: int) -> None:
        """Refuse larger scans than the run would, from their headers, so that one scan cannot take all memory.

        Args:
            values: largest number of pixels of a picture and of voxels of a volume; a lower limit of the run stays.
        """
        picture, volume = self.data.picture, self.data.preprocessing.volume
        self.data.picture = replace(picture, max_pixels=min(picture.max_pixels, values))
        volume = replace(volume, max_voxels=min(volume.max_voxels, values))
        self.data.preprocessing = replace(self.data.preprocessing, volume=volume)
        self._plan = replace(self._plan, preprocessing=self.data.preprocessing)

    def score(self, source: str | Path | Case | NDArray[Any], anyway: bool = False) -> ScoredScan:
        """Score one scan.

        Args:
            source: path of a picture, a NIfTI volume, a DICOM file or the folder of a DICOM series; a `Case`; or a
                picture as an array [H, W] or [H, W, 3] of uint8, uint16, or floats in [0, 1].
            anyway: score a scan of another nature than those of the training.

        Raises:
            UserError: the source cannot be read, has more than one scan or is of another nature than the training
                scans, or its score is not finite.
        """
        (scored,) = self.score_all([self._only_case(source)] if isinstance(source, str | Path) else [source], anyway)
        return scored

    def score_all(self, sources: Iterable[Case | NDArray[Any]], anyway: bool = False) -> Iterator[ScoredScan]:
        """Score scans one after another, in order, up to the first that cannot be scored.

        Args:
            sources: cases, or pictures as arrays, see `score`.
            anyway: score scans of another nature than those of the training.

        Raises:
            UserError: as `score`.
        """
        for group in self.groups(sources, anyway):
            for outcome in group:
                if isinstance(outcome, NotScored):
                    name = outcome.case.id if outcome.case.image == Path() else outcome.case.image
                    raise UserError(f"{name}: {outcome.reason}")
                yield outcome

    def groups(
        self, sources: Iterable[Case | NDArray[Any]], anyway: bool = False
    ) -> Iterator[list[ScoredScan | NotScored]]:
        """Score scans in groups, whose windows share batches: many pictures, or one volume; all are in order.

        The groups of sources[n:] are those of `sources` from the same place on, if n is where a group begins.

        Args:
            sources: cases, or pictures as arrays, see `score`.
            anyway: score scans of another nature than those of the training; ScoredScan.remarks then says so.
        """
        group: list[_Windows | NotScored] = []
        for place, source in enumerate(sources):
            group.append(self._read(source, place, anyway))
            if sum(_number(member) for member in group) >= self.data.scoring_batch_size:
                yield self._scored(group)
                group = []
        if group:
            yield self._scored(group)

    def _only_case(self, source: str | Path) -> Case:
        path = Path(source)
        cases = survey(path, self.data.include).cases if path.exists() else []
        if len(cases) != 1:
            problem = f"{len(cases)} scans, but one is expected" if cases else "no picture, NIfTI volume or DICOM file"
            raise UserError(f"{path}: {problem}; for folders use score_all or `make predict`")
        return cases[0]

    def _scored(self, group: Sequence[_Windows | NotScored]) -> list[ScoredScan | NotScored]:
        """Score the windows of a group together."""
        readable = [member for member in group if isinstance(member, _Windows)]
        if not readable:
            return [member for member in group if isinstance(member, NotScored)]
        try:
            scored = self._predict(np.concatenate([block for each in readable for block, _ in each.cut.blocks()]))
        except (RuntimeError, MemoryError) as error:  # such as too little memory for a large scan
            reason = f"the detector failed ({_in_one_line(error)})"
            return [each if isinstance(each, NotScored) else NotScored(each.case, reason) for each in group]
        ends = np.cumsum([_number(member) for member in group]).tolist()
        outcomes: list[ScoredScan | NotScored] = []
        for member, end in zip(group, ends, strict=True):
            if isinstance(member, _Windows):
                own = slice(end - member.number, end)
                outcomes.append(self._conclude(member, scored.of(own)))
            else:
                outcomes.append(member)
        return outcomes

    def _read(self, source: Case | NDArray[Any], place: int, anyway: bool) -> _Windows | NotScored:
        """Read a scan and cut it; whatever goes wrong is its own fault, not that of the others."""
        case = source if isinstance(source, Case) else Case(f"array {place}", "", Path(), label=0)
        try:
            return self._windows(source, case, anyway)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except UserError as error:
            return NotScored(case, plain_reason(error, case))
        except BaseException as error:  # a reader's fault, or the panic of a decoder, which is no Exception
            return NotScored(case, f"it cannot be read ({type(error).__name__}: {_in_one_line(error)})")

    def _windows(self, source: Case | NDArray[Any], case: Case, anyway: bool) -> _Windows:
        remarks: tuple[str, ...] = ()
        if isinstance(source, Case):
            scan, remarks = self._scan(source)
        else:
            if self.of_arrays and not self._warned:
                warnings.warn(f"{self.of_arrays}; score the file, or change the array alike", stacklevel=2)
                self._warned = True
            scan = cropped(Scan(as_picture(source, self.data.in_channels, self.data.picture)), self.data.cropping)
        objections = self.expected.objections(case, scan)
        if objections and not anyway:
            raise UserError(
                f"not scored, since its score would mean nothing: {'; '.join(objections)}; --anyway (anyway=True) "
                "scores it"
            )
        cut = CutScan.of(self._plan, case, self._plan.preprocessing(scan))
        remarks = (*remarks, *([f"{UNLIKE}: {'; '.join(objections)}"] if objections else []))
        everything, location = np.ones(len(cut.windows.label), bool), cut.windows.location
        sampling = self.data.patch_sampling
        if sampling is None:
            return _Windows(case, scan, cut, len(everything), everything, remarks)
        # the run was trained and evaluated on windows of these slices with at least this share of foreground
        counted = sampling.inside(location, cut.scan.pixels.shape[1:], cut.across)
        if cut.scan.foreground is not None:
            counted = counted & (shares(cut.scan.foreground, location, cut.extent) >= sampling.foreground)
        return _Windows(case, scan, cut, len(everything), counted if counted.any() else everything, remarks)

    def _scan(self, case: Case) -> tuple[Scan, tuple[str, ...]]:
        """Read a scan; if only its mask, which is no more than shown, is at fault, it goes without."""
        try:
            return self._plan.read(case), ()
        except UserError as error:
            if case.mask is None:
                raise
            scan = self._plan.read(replace(case, mask=None))
            return scan, (f"its mask cannot be used: {plain_reason(error, case)}",)

    def _predict(self, patches: NDArray[Any]) -> _Scores:
        """Score patches [n, C, *P], batch by batch."""
        size, device = self.data.scoring_batch_size, self.detector.device
        batches = (Batch(image=to_float(patches[start : start + size])) for start in range(0, len(patches), size))
        parts = [scored for _, scored in score_batches(self.detector.score, batches, device)]
        maps = [part.anomaly_map[:, 0] for part in parts if part.anomaly_map is not None]
        classes = [part.probability for part in parts if part.probability is not None]
        drawn = [part.reconstruction for part in parts if part.reconstruction is not None]
        return _Scores(
            np.concatenate([part.score for part in parts]),
            np.concatenate(maps) if maps else None,
            np.concatenate(classes) if classes else None,
            np.concatenate(drawn) if drawn else None,
        )

    def _conclude(self, windows: _Windows, scored: _Scores) -> ScoredScan | NotScored:
        """Combine what is known of a scan's windows."""
        scores, maps = scored.score, scored.anomaly_map
        rule: Rule = "max" if self._unit["rule"] == "none" else self._unit["rule"]
        counted = scores[windows.counted]
        score = float(case_scores(counted, np.zeros(len(counted), int), rule, self._unit["top_k"])[1][0])
        if not np.isfinite(score) or not (maps is None or np.isfinite(maps).all()):
            what = "score" if not np.isfinite(score) else "anomaly map"
            return NotScored(windows.case, f"the {what} is not finite: the detector gave no number for this scan")
        classes = None if scored.probability is None else scored.probability[windows.counted].mean(0)
        if classes is not None and not ((classes >= 0) & (classes <= 1)).all():
            return NotScored(windows.case, "a class probability is none: the detector gave no number from 0 to 1")
        if maps is None and len(scores) > 1:
            maps = score_maps(scores, self.data.patch_size, *self._zero_and_one(counted))
        return ScoredScan(
            windows.case,
            score,
            conformal_p_values(np.array([score]), self.normals).item() if len(self.normals) else None,
            None if self.threshold is None else score > self.threshold,
            windows.scan,
            windows.cut,
            self.data.preprocessing,
            None if maps is None else self._stitched(windows.cut, maps),
            windows.remarks,
            classes,
            None if scored.reconstruction is None else self._redrawn(windows.cut, scored.reconstruction),
        )

    def _zero_and_one(self, scores: NDArray[np.float64]) -> tuple[float, float]:
        """Return the scores that a map of scores shows as 0 and 1: lowest validation normal and threshold.

        For a run without validation normals, these are the lowest and the highest score of the scan.
        """
        return self.reference.scale or (float(scores.min()), float(scores.max()))

    def _stitched(self, cut: CutScan, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        bounded = self.data.patch_sampling is not None and self.data.patch_sampling.foreground > 0
        foreground = cut.scan.foreground[0] if bounded and cut.scan.foreground is not None else None
        return whole_map(maps, cut.windows.location, cut.scan.pixels.shape[1:], cut.across, foreground)

    def _redrawn(self, cut: CutScan, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Merge the reconstructions [n, C, *P] of a scan's windows into one of the scan, [C, *S]."""
        where = cut.windows.location, cut.scan.pixels.shape[1:], cut.across
        whole = np.stack([whole_map(patches[:, channel], *where) for channel in range(patches.shape[1])])
        is_covered = whole_map(np.broadcast_to(np.float32(1), patches[:, 0].shape), *where) > 0
        redrawn: NDArray[np.float32] = np.where(is_covered, whole, to_float(cut.scan.pixels[None])[0].numpy())
        return redrawn


def _part(data: PatchDataModule, evaluation: Evaluation, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return the setting by which only some windows of the scans in `Reference` were scored; empty if all were."""
    cut = data.patch_sampling
    if cut is None:  # limits are of whole scans, and of each volume all windows of the default grid are there
        return ""
    fitted = evaluation.reference == "crossfit"  # training windows are among the normals
    for split in ("val", *(["train"] if fitted else [])):
        limit = data.limits.get(split)
        if limit is not None and (limit < 1 or sum(counts.get(split, {}).values()) >= int(limit)):
            return f"data.limits.{split}={limit:g}"
    if cut.per_scan:
        return f"data.cut.per_scan={cut.per_scan}"
    return f"data.cut.random={cut.random}" if cut.random and fitted else ""


def plain_reason(error: Exception, case: Case) -> str:
    """Return what an error says of a file, without its path and without the remedy that only a training has.

    Examples:
        >>> error = UserError("a.png: it is torn; replace it, or leave such files out with data.store.on_bad=skip")
        >>> plain_reason(error, Case("a.png", "a", Path("a.png"), label=0))
        'it is torn; replace it'
    """
    return _TRAINING_REMEDY.sub("", _in_one_line(error).removeprefix(f"{case.image}: "))


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _number(member: _Windows | NotScored) -> int:
    return 0 if isinstance(member, NotScored) else member.number


def load_weights(run: Path, detector: Detector, asked: str | None = None) -> Path:
    """Load the weights that a run stands for into a detector and set the run's number of threads.

    Args:
        run: the run folder.
        detector: the detector, as configured in the run; modified in place.
        asked: name of another one of its checkpoints, or how it begins.

    Returns:
        The file of the checkpoint.

    Raises:
        UserError: the checkpoint is not there, is damaged, belongs to another run or does not fit the detector, or the
            training has not reached the point from which scores are meaningful.

    Examples:
        >>> data, detector = construct(configuration.recall(run / "config.yaml"))  # doctest: +SKIP
        >>> load_weights(run, detector)  # doctest: +SKIP
    """
    facts = record.read_provenance(run)
    torch.set_num_threads(facts.get("threads", torch.get_num_threads()))
    path = checkpoint_files.final(run, facts, asked)
    try:
        detector.load_state_dict(checkpoint_files.load(path, checkpoint_files.run_ids(facts))["state_dict"])
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} does not fit the detector of {run / 'config.yaml'}: {reason}") from error
    if not detector.ready:
        raise UserError(f"{run} is not trained far enough to score; continue with: make resume RUN={run}")
    return path


def _bits_of_data(run: Path, facts: Mapping[str, Any]) -> int:
    """Return the bits of a stored pixel where the record of an older run does not say it."""
    config = configuration.recall(run / "config.yaml")
    config.data.source = facts.get("source", config.data.source)
    data: PatchDataModule = configuration.build(config.data)
    data.setup()
    bits: int = data.facts()["bits"]
    return bits
