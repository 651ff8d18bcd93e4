"""Score new scans with a trained run, using its preprocessing, weights, threshold and validation normals.

The training data are not needed. If the detector has no anomaly map, one is made from its scores: windows are scored
across the scan, and each score fills its window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.preprocessing.patches import shares
from anomaly_lab.data.preprocessing.transforms import Preprocessing, to_float
from anomaly_lab.data.readers.files import find_cases
from anomaly_lab.data.readers.geometry import onto
from anomaly_lab.data.readers.pictures import as_picture
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.store.plan import CutScan
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.maps import whole_map
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.evaluation.scoring import score_batches
from anomaly_lab.evaluation.stitching import Rule, case_scores, score_maps
from anomaly_lab.experiment import checkpoint_files, record, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.metrics.thresholds import conformal_p_values
from anomaly_lab.pipeline.training import construct
from anomaly_lab.types import Batch, Case, UserError


@dataclass(frozen=True)
class ScoredScan:
    """A scan with its score and anomaly map.

    Attributes:
        case: the scan's paths and facts.
        score: raw score; higher = more anomalous.
        p_value: conformal p-value, (1 + number of validation normals that score at least as high) / (1 + number of
            validation normals); None if the run has none.
        is_anomalous: whether the score exceeds the run's threshold; None if the run has none.
        scan: the scan as it was read.
        cut: the scan as the detector received it: preprocessed, with its windows.
        preprocessing: the preprocessing that was applied.
        map_seen: float32 [*S] on the preprocessed grid; None if the detector has no map and the scan only one window.
    """

    case: Case
    score: float
    p_value: float | None
    is_anomalous: bool | None
    scan: Scan
    cut: CutScan
    preprocessing: Preprocessing
    map_seen: NDArray[np.float32] | None

    @cached_property
    def anomaly_map(self) -> NDArray[np.float32] | None:
        """Anomaly map on the original grid of the scan: float32 [H, W] for pictures, [*S] for volumes; or None."""
        if self.map_seen is None:
            return None
        if self.scan.affine is None:
            return self.preprocessing.undo(self.map_seen, self.scan.shape)
        assert self.cut.scan.affine is not None
        own: NDArray[np.float32] = onto(self.map_seen[None], self.cut.scan.affine, self.scan.affine, self.scan.shape)[0]
        return own


class _Windows(NamedTuple):
    """A scan with its windows: their number, and which of them count for the score, [n]."""

    case: Case
    scan: Scan
    cut: CutScan
    number: int
    counted: NDArray[np.bool_]


class Scorer:
    """Scores new scans with a trained and evaluated run; usually created by `Scorer.open`.

    Args:
        data: data set of the run, for the preprocessing; need not be set up.
        detector: detector with its trained weights.
        metrics: content of metrics.json.
        normals: scores of the validation normals, [n].
        bits: bits per stored pixel, 8 or 16.

    Examples:
        >>> scorer = Scorer.open("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        >>> scorer.score("slice.png").p_value  # doctest: +SKIP
        0.1
    """

    def __init__(
        self,
        data: PatchDataModule,
        detector: Detector,
        metrics: dict[str, Any],
        normals: NDArray[np.float64],
        bits: int,
    ) -> None:
        self.data, self.detector, self.normals = data, detector, normals
        self.threshold: float | None = metrics["threshold"]["value"]
        self._unit = metrics["unit"]
        self._plan = data.scoring_plan(bits)

    @classmethod
    def open(cls, path: str | Path) -> Scorer:
        """Create the scorer of a run folder.

        Raises:
            UserError: `path` is not a run folder, or the run is not trained far enough or not evaluated.
        """
        run = run_folder.open_run(str(path))
        metrics = record.read_metrics(run, needs=("threshold.value", "unit.rule", "unit.top_k"))
        if not metrics:
            raise UserError(f"{run} was never evaluated, so it has no threshold; run: make evaluate RUN={run}")
        facts = record.read_provenance(run, needs=("data",))
        config = configuration.recall(run / "config.yaml")
        config.data.source = "twin"  # avoids looking for the training files, which are not needed
        data, detector = construct(config)
        load_weights(run, detector)
        scores = Scores.read(run / "scores.csv")
        bits = facts["data"].get("bits")
        if bits is None:  # a run of an older version
            bits = _bits_of_data(run, facts)
        return cls(data, detector, metrics, scores.score[scores.normals], bits)

    def score(self, source: str | Path | Case | NDArray[Any]) -> ScoredScan:
        """Score one scan.

        Args:
            source: path of a picture, a NIfTI volume, a DICOM file or the folder of a DICOM series; a `Case`; or a
                picture as an array [H, W] or [H, W, 3] of uint8, uint16, or floats in [0, 1].

        Raises:
            UserError: the source cannot be read or has more than one scan.
        """
        (scored,) = self.score_all([_only_case(source)] if isinstance(source, str | Path) else [source])
        return scored

    def score_all(self, sources: Iterable[Case | NDArray[Any]]) -> Iterator[ScoredScan]:
        """Score scans one after another, in order; the windows of small scans share batches.

        Args:
            sources: cases, or pictures as arrays, see `score`.
        """
        for group in self._groups(sources):
            patches = np.concatenate([block for windows in group for block, _ in windows.cut.blocks()])
            scores, maps = self._predict(patches)
            ends = np.cumsum([windows.number for windows in group]).tolist()
            for windows, end in zip(group, ends, strict=True):
                own = slice(end - windows.number, end)
                yield self._conclude(windows, scores[own], None if maps is None else maps[own])

    def _groups(self, sources: Iterable[Case | NDArray[Any]]) -> Iterator[list[_Windows]]:
        """Group scans to at least a batch of windows: many pictures, or one volume."""
        group: list[_Windows] = []
        for place, source in enumerate(sources):
            group.append(self._windows(source, place))
            if sum(windows.number for windows in group) >= self.data.scoring_batch_size:
                yield group
                group = []
        if group:
            yield group

    def _windows(self, source: Case | NDArray[Any], place: int) -> _Windows:
        if isinstance(source, Case):
            case = source
            cut, scan = self._plan.patches(case)
        else:
            case = Case(id=f"array {place}", patient="", image=Path(), label=0)
            scan = Scan(as_picture(source, self.data.in_channels))
            cut = CutScan.of(self._plan, case, self._plan.preprocessing(scan))
        everything = np.ones(len(cut.windows.label), bool)
        sampling = self.data.patch_sampling
        if sampling is None or cut.scan.foreground is None:
            return _Windows(case, scan, cut, len(everything), everything)
        # the run was trained and evaluated on windows with at least this share of foreground
        enough = shares(cut.scan.foreground, cut.windows.location, cut.extent) >= sampling.foreground
        return _Windows(case, scan, cut, len(everything), enough if enough.any() else everything)

    def _predict(self, patches: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """Compute the scores [n] and maps [n, *P] of patches [n, C, *P], batch by batch."""
        size, device = self.data.scoring_batch_size, self.detector.device
        batches = (Batch(image=to_float(patches[start : start + size])) for start in range(0, len(patches), size))
        parts = [scored for _, scored in score_batches(self.detector.score, batches, device)]
        maps = [part.anomaly_map[:, 0] for part in parts if part.anomaly_map is not None]
        return np.concatenate([part.score for part in parts]), np.concatenate(maps) if maps else None

    def _conclude(self, windows: _Windows, scores: NDArray[np.float64], maps: NDArray[np.float32] | None) -> ScoredScan:
        """Combine the scores [n] and maps [n, *P] of a scan's windows."""
        rule: Rule = "max" if self._unit["rule"] == "none" else self._unit["rule"]
        counted = scores[windows.counted]
        score = float(case_scores(counted, np.zeros(len(counted), int), rule, self._unit["top_k"])[1][0])
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
        )

    def _zero_and_one(self, scores: NDArray[np.float64]) -> tuple[float, float]:
        """Return the scores that a map of scores shows as 0 and 1: lowest validation normal and threshold.

        For a run without validation normals, these are the lowest and the highest score of the scan.
        """
        if self.threshold is None:
            return float(scores.min()), float(scores.max())
        return float(self.normals.min()), self.threshold

    def _stitched(self, cut: CutScan, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        bounded = self.data.patch_sampling is not None and self.data.patch_sampling.foreground > 0
        foreground = cut.scan.foreground[0] if bounded and cut.scan.foreground is not None else None
        return whole_map(maps, cut.windows.location, cut.scan.pixels.shape[1:], cut.across, foreground)


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
        detector.load_state_dict(checkpoint_files.load(path, run_ids(facts))["state_dict"])
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} does not fit the detector of {run / 'config.yaml'}: {reason}") from error
    if not detector.ready:
        raise UserError(f"{run} is not trained far enough to score; continue with: make resume RUN={run}")
    return path


def run_ids(facts: Mapping[str, Any]) -> set[str | None]:
    """Return the ids that the checkpoints of a run may carry: its own and that of the run it started from.

    Args:
        facts: provenance of the run.

    Returns:
        The ids; with None among them, for runs of older versions, any.

    Examples:
        >>> sorted(run_ids({"id": "1f", "started_from": {"id": "0e"}}))
        ['0e', '1f']
    """
    started = facts.get("started_from")
    return {facts.get("id")} | ({started.get("id")} if started else set())


def _bits_of_data(run: Path, facts: Mapping[str, Any]) -> int:
    """Return the bits of a stored pixel where the record of an older run does not say it."""
    config = configuration.recall(run / "config.yaml")
    config.data.source = facts.get("source", config.data.source)
    data: PatchDataModule = configuration.build(config.data)
    data.setup()
    bits: int = data.facts()["bits"]
    return bits


def _only_case(source: str | Path) -> Case:
    path = Path(source)
    cases = find_cases(path) if path.exists() else []
    if len(cases) != 1:
        problem = f"{len(cases)} scans, but one is expected" if cases else "no picture, NIfTI volume or DICOM file"
        raise UserError(f"{path}: {problem}; for folders use score_all or `make predict`")
    return cases[0]
