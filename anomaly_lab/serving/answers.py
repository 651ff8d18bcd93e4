"""What a run says of one upload: its score, or its anomaly map. Runs in the process that scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.readers import dicom
from anomaly_lab.data.readers.dicom_parametric_map import write_parametric_map
from anomaly_lab.data.readers.files import survey
from anomaly_lab.data.readers.nifti import save_map
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.pipeline.scorer import NotScored, ScoredScan, Scorer
from anomaly_lab.reports import images, prediction_page
from anomaly_lab.reports.html import without_folders
from anomaly_lab.reports.record import read_run
from anomaly_lab.serving.jobs import MAPS, REFUSED, SCORED, Answer, Job, Wanted
from anomaly_lab.types import Case, UserError

_SWITCH = re.compile(r"; --anyway \(anyway=True\) scores it$")  # as the command line has it


class RunAnswers:
    """Answers with the scores that `predict` gives the same files.

    Args:
        scorer: of the run.
        facts: of the run, see `facts_of`.

    Examples:
        >>> answers = RunAnswers.open("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        >>> answers.answer(Job(Path("upload"))).content["score"]  # doctest: +SKIP
        0.31
    """

    def __init__(self, scorer: Scorer, facts: dict[str, Any]) -> None:
        self.scorer, self._facts = scorer, facts

    @property
    def facts(self) -> dict[str, Any]:
        """See `facts_of`."""
        return self._facts

    @classmethod
    def open(cls, run: str, largest: int = 2**27, overrides: Sequence[str] = ()) -> RunAnswers:
        """Open a run folder.

        Args:
            run: the run folder.
            largest: scans of more pixels or voxels are refused.
            overrides: `key=value` words, of the keys in `scorer.SETTINGS` alone.

        Raises:
            UserError: it is no run folder, or the run is not trained far enough or not evaluated.
        """
        scorer = Scorer.open(run, overrides)
        scorer.refuse_above(largest)
        return cls(scorer, facts_of(scorer, Path(run)))

    def answer(self, job: Job) -> Answer:
        """Score the files of a job and, if it was asked for, write the map beside their folder."""
        try:
            case = _case(job.folder, self.scorer.data.include)
            ((outcome,),) = self.scorer.groups([case], job.anyway)
        except UserError as error:
            return _refused(str(error), job)
        if isinstance(outcome, NotScored):
            return _refused(outcome.reason, job)
        content = self._content(outcome)
        if job.wanted == "score":
            return Answer(SCORED, content)
        path = job.folder.with_name(MAPS[job.wanted][0])
        try:
            _write_map(path, job.wanted, outcome)
        except UserError as error:
            return _refused(str(error), job)
        return Answer(SCORED, content, path)

    def _content(self, scored: ScoredScan) -> dict[str, Any]:
        classes = {}
        if scored.probabilities is not None:
            classes["probabilities"] = dict(zip(self.scorer.classes, scored.probabilities.tolist(), strict=True))
        return {
            "score": scored.score,
            "p_value": scored.p_value,
            "pred_label": None if scored.is_anomalous is None else int(scored.is_anomalous),
            "threshold": self.scorer.threshold,
            "reference": str(self.scorer.reference),
            **classes,
            "remarks": list(scored.remarks),
            "has_map": scored.map_seen is not None,
            "source": self.facts["source"],
            "caveats": self.facts["caveats"],
            "run": self.facts["run"],
        }


def facts_of(scorer: Scorer, run: Path) -> dict[str, Any]:
    """Return what everybody who asks for a score should know of the run.

    Args:
        scorer: of the run.
        run: the run folder.

    Returns:
        run (name and id), detector, data, source ("real" or "twin"), threshold, validation_normals (their number),
        reference (what they are), and caveats: everything that the run's report warns of, one text each.
    """
    record = read_run(run)
    known = record.provenance
    facts = {
        "run": {"name": record.name, "id": known.get("id") or run.resolve().name},
        "detector": type(scorer.detector).__name__,
        "data": (known.get("data") or {}).get("name"),
        "source": known.get("source"),
        "threshold": scorer.threshold,
        "validation_normals": len(scorer.normals),
        "reference": str(scorer.reference),
        "caveats": prediction_page.caveats(record, scorer.reference, scorer.expected.is_known),
    }
    shown: dict[str, Any] = without_folders(facts)
    return shown


def _refused(reason: str, job: Job) -> Answer:
    """Refuse a scan, without the names that its files have on this machine."""
    plain = reason.replace(f"{job.folder}/", "").replace(f"{job.folder}", "the upload")
    return Answer(REFUSED, {"detail": _SWITCH.sub("; anyway=1 scores it", plain)})


def _case(folder: Path, include: Sequence[str]) -> Case:
    """Return the one scan that the files of an upload are."""
    files = sorted(folder.iterdir())
    if len(files) == 1 and not dicom.is_dicom(files[0]):
        return Case("upload", "upload", files[0], label=0)
    found = survey(files[0] if len(files) == 1 else folder, include)
    if found.left_out:
        raise UserError(
            f"{len(found.left_out)} of {len(files)} files are no DICOM slices; send several files only if they are the "
            "slices of one series"
        )
    if len(found.cases) != 1:
        raise UserError(f"the {len(files)} files are {len(found.cases)} scans; send the slices of one series")
    return found.cases[0]


def _write_map(path: Path, wanted: Wanted, scored: ScoredScan) -> None:
    """Write the map of a scan in the format that was asked for."""
    if scored.anomaly_map is None:
        raise UserError("the detector has no anomaly map, and the scan has a single window; ask for the score")
    case, in_space = scored.case, scored.scan.affine is not None
    if wanted == "png":
        Image.fromarray(overlaid(scored)).save(path)
    elif not in_space:
        raise UserError("the scan is a picture, which has no place in space for such a map; ask for format=png")
    elif wanted == "nifti":
        save_map(path, scored.anomaly_map, scored.scan.own_grid.affine, case.image)
    elif not dicom.is_dicom(case.image):
        raise UserError("the scan is not DICOM, whose header such a map takes over; ask for format=nifti")
    else:
        write_parametric_map(path, scored.anomaly_map, (case.image, *case.slices))


def overlaid(scored: ScoredScan) -> NDArray[np.uint8]:
    """Lay a map over its picture, in the picture's own size, or over the slice of a volume where it is highest.

    The slice is one of the grid that the detector received. The brightest colour stands for the 99.5th percentile of
    the scan's map, as on the page of a prediction with one file.

    Args:
        scored: with a map.

    Returns:
        Colours, [H, W, 3].
    """
    assert scored.map_seen is not None
    assert scored.anomaly_map is not None
    brightest = float(np.nanquantile(scored.map_seen, 0.995))
    if scored.scan.affine is None:
        image, values = _picture(scored.scan), scored.anomaly_map
        values = values if scored.scan.origin is None else scored.scan.origin.cut(values)
    else:
        volume, axis = to_float(scored.cut.scan.pixels[None])[0].numpy(), scored.cut.across or 0
        slices = np.moveaxis(scored.map_seen, axis, 0)
        hottest = int(slices.max((1, 2)).argmax())
        image, values = np.moveaxis(volume, axis + 1, 1)[:, hottest], slices[hottest]
    colours: NDArray[np.uint8] = (images.overlay(image, values, brightest) * 255).round().astype(np.uint8)
    return colours


def _picture(scan: Scan) -> NDArray[np.float32]:
    """Return the pixels of a picture in [-1, 1], [C, H, W]."""
    white = np.float32(np.iinfo(scan.pixels.dtype).max)
    return (scan.pixels.astype(np.float32) / white * 2 - 1).astype(np.float32)
