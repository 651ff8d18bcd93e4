"""Score new files with a trained run: a table that grows row by row, anomaly maps and an HTML page.

A file that cannot be scored is a row with its reason. A prediction that was killed goes on where it stopped, if the
same command is given for the same folder, and ends in the same bytes.
"""

from __future__ import annotations

import csv
import errno
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.progress import Progress

from anomaly_lab import __version__
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.readers import dicom, nifti, pictures
from anomaly_lab.data.readers.dicom_header import header_of, text
from anomaly_lab.data.readers.dicom_parametric_map import write_parametric_map
from anomaly_lab.data.readers.files import survey
from anomaly_lab.data.readers.nifti import save_map
from anomaly_lab.data.readers.tree import name_of
from anomaly_lab.evaluation.classes import PROBABILITY
from anomaly_lab.evaluation.maps import filled
from anomaly_lab.experiment.tables import open_table, restored, to_csv
from anomaly_lab.metrics import ranking
from anomaly_lab.pipeline.console import console, say, warn
from anomaly_lab.pipeline.prediction_folder import TABLE, PredictionFolder
from anomaly_lab.pipeline.scorer import UNLIKE, NotScored, ScoredScan, Scorer
from anomaly_lab.reports import prediction_page
from anomaly_lab.reports.html import Banner
from anomaly_lab.reports.prediction_page import NOT_CHECKED, Exhibit, Exhibits, Finding, Scoring
from anomaly_lab.types import Case, UserError

COLUMNS = ("id", "score", "p_value", "pred_label", "reason", "reference")
DICOM_COLUMNS = ("series_uid", "instance_uid")  # where DICOM files are among the cases
LEFT_OUT = "left_out.csv"
_ORIENTATION = 0x0112  # the tag of Exif and TIFF
_UNDO = {  # of what a viewer does for each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Request:
    """What is to be scored, and how.

    Attributes:
        source: a file, or a folder that is searched with its sub-folders.
        masks: known lesions, for display only: one file if `source` is a file, or a folder of files that are named like
            the images; None for those that lie where the run's own lie, if any.
        out: folder for the results; None for a new one in the run folder.
        overwrite: replace a former result of the run in `out`.
        anyway: score files of another nature than the run's, too, and those that its rules leave out.
    """

    source: Path
    masks: Path | None = None
    out: str | None = None
    overwrite: bool = False
    anyway: bool = False

    @property
    def inputs(self) -> dict[str, Path]:
        """What is read, by the name that the user knows it by."""
        return {"INPUT": self.source} | ({} if self.masks is None else {"MASKS": self.masks})


class NewFiles(NamedTuple):
    """What there is to score.

    Attributes:
        cases: sorted by id, which is the path below the folder, of a series that of its first file.
        left_out: the files that are no scans, by path below the folder, and the reason.
    """

    cases: list[Case]
    left_out: dict[str, str]


class Predicted(NamedTuple):
    """The result of a prediction.

    Attributes:
        folder: with scores.csv, maps and index.html.
        findings: one for each case.
        left_out: files that are no scans, with the reason.
    """

    folder: Path
    findings: list[Finding]
    left_out: Mapping[str, str]

    @property
    def not_scored(self) -> list[Finding]:
        """The files without a score."""
        return [finding for finding in self.findings if not finding.is_scored]

    @property
    def is_whole(self) -> bool:
        """Whether everything that was asked for was done: each file has a score, and its map and mask if it had any."""
        return all(f.is_scored and (not f.reason or f.reason.startswith(UNLIKE)) for f in self.findings)


def new_files(data: PatchDataModule, request: Request) -> NewFiles:
    """Find the pictures and scans to score, by the rules that the run's own files follow.

    Args:
        data: the data set of the run, which says what is a scan and what a mask.
        request: what was asked for.

    Raises:
        UserError: there is nothing to score, or no mask matches.

    Examples:
        >>> import tempfile
        >>> from anomaly_lab.data.datasets.folder import Folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("slice.png", "masks/slice.png", "notes.txt"):
        ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
        ...         (Path(folder) / name).touch()
        ...     found = new_files(Folder(root="none", source="twin"), Request(Path(folder)))
        ...     [case.id for case in found.cases], found.left_out
        (['slice.png'], {'masks/slice.png': 'a mask', 'notes.txt': 'not a kind of file that is read'})
    """
    source = request.source
    if not source.exists():
        raise UserError(f"{source}: there is no such file or folder; give INPUT=<file or folder>")
    found = survey(source, data.include)
    root = source if source.is_dir() else source.parent
    left_out = {name_of(path.relative_to(root).as_posix()): reason for path, reason in found.left_out.items()}
    cases = []
    for case in found.cases:
        role = "scan" if source.is_file() else data.role(case.image, source)
        if role == "mask":
            left_out[case.id] = "a mask"
        elif role == "other" and not request.anyway:
            left_out[case.id] = "no scan by the rules of the run's data set, see data.* in its config.yaml"
        else:
            cases.append(case if case.mask else replace(case, mask=data.known_mask(case.image, source)))
    if not cases:
        first = next(iter(left_out.items()), None)
        why = f": {counted(len(left_out))} left out, such as {first[0]} ({first[1]})" if first else ""
        raise UserError(
            f"{source}: no pictures, NIfTI volumes or DICOM files to score{why}; give INPUT=<file or folder>"
        )
    return NewFiles(_with_masks(cases, request.masks), dict(sorted(left_out.items())))


def asked(run: Mapping[str, Any], scorer: Scorer, request: Request, cases: Sequence[Case]) -> dict[str, Any]:
    """Return what a prediction is known by: only if all of it is equal can it be gone on with.

    Args:
        run: name, id and checkpoint of the run.
        scorer: its scorer.
        request: what was asked for.
        cases: what was found; files count as changed if their size or time has.

    Examples:
        >>> asked({"id": "1f"}, scorer, request, cases)["input"]  # doctest: +SKIP
        '/home/me/new_scans'
    """
    digest = hashlib.sha256()
    for case in cases:
        files = [path for path in (case.image, *case.slices, case.mask) if path is not None]
        states = [(path.name, facts.st_size, facts.st_mtime_ns) for path in files if (facts := _facts(path))]
        digest.update(repr((case.id, states)).encode("utf-8", "surrogateescape"))
    return {
        "run": dict(run),
        "input": str(request.source.resolve()),
        "masks": None if request.masks is None else str(request.masks.resolve()),
        "anyway": request.anyway,
        "content": digest.hexdigest()[:16],
        "batch": scorer.data.scoring_batch_size,
        "reference": str(scorer.reference),
        "version": __version__,
    }


def predict_files(
    scorer: Scorer, found: NewFiles, folder: PredictionFolder, scoring: Scoring, anyway: bool = False
) -> Predicted:
    """Score cases and write scores.csv, a map of every case and index.html.

    scores.csv has the columns id, score, p_value, pred_label, reason, which says why a file has no score or what to
    know of it, and reference, what the score is compared with; of a run with classes the probability of each; for DICOM
    also series_uid and, of a case that is one file, instance_uid.

    Maps are named `maps/<id>.map.png` for pictures, in the size and orientation of the file, and `maps/<id>.map.nii.gz`
    for volumes, on the grid of the scan with its affine. White of a picture is its scale, a power of two that no value
    exceeds, of which the file and `map_scales` of prediction.json tell. A DICOM series also gets `maps/<id>.map.dcm`, a
    Parametric Map, if highdicom is installed.

    If the detector has no map and a scan has several windows, the map shows the scores of the windows, averaged where
    they overlap and scaled linearly: 0 is the lowest score of the run's validation normals, 1 is the run's threshold.
    For a run without validation normals, the scale is from the lowest to the highest score of the scan.

    Args:
        scorer: the scorer of the run.
        found: the cases, see `new_files`.
        folder: the folder for the results, perhaps with those of a part of the cases.
        scoring: what the page says of the run.
        anyway: score cases of another nature than the training scans.

    Examples:
        >>> predict_files(scorer, found, folder, Scoring(run.name, {}, {}, normals=19))  # doctest: +SKIP
    """
    work = _Work(scorer, found, folder)
    with Progress(console=console) as progress:
        task = progress.add_task("scoring", total=len(found.cases), completed=folder.done)
        for group in scorer.groups(found.cases[folder.done :], anyway):
            for outcome in group:
                work.add(outcome)
                progress.advance(task)
            folder.note(rows=len(work.findings))
    if found.left_out:
        folder.file(LEFT_OUT).write_text(to_csv([("file", "reason"), *found.left_out.items()]), encoding="utf-8")
    banners = [*scoring.banners, *_banners(scorer, work.findings)]
    if scorer.reference.lacking:
        warn(scorer.reference.lacking)
    scoring = scoring._replace(left_out=found.left_out, banners=banners, classes=scorer.classes)
    scoring = scoring.compared_with(scorer.reference)
    folder.finish(prediction_page.render(scoring, work.findings, list(work.exhibits)))
    return Predicted(folder.path, work.findings, found.left_out)


class _Work:
    """The table, the maps and the pictures of a prediction, case by case."""

    def __init__(self, scorer: Scorer, found: NewFiles, folder: PredictionFolder) -> None:
        self._folder = folder
        self._root = Path(*found.cases[0].image.parts[: -len(Path(found.cases[0].id).parts)])
        self._has_dicom = any(map(_is_dicom, found.cases))
        self._classes, self._reference = scorer.classes, str(scorer.reference)
        self.exhibits = Exhibits(folder.work / "pictures")
        self.findings: list[Finding] = []
        if folder.is_blank:
            of_classes = (f"{PROBABILITY}{name}" for name in self._classes)
            folder.append(to_csv([(*COLUMNS, *of_classes, *(DICOM_COLUMNS if self._has_dicom else ()))]))
            folder.note(rows=0)
        else:
            self.findings = _findings(
                folder.path / TABLE, [case.id for case in found.cases[: folder.done]], self._classes
            )

    def add(self, outcome: ScoredScan | NotScored) -> None:
        """Write what is known of a case."""
        case = outcome.case
        if isinstance(outcome, NotScored):
            finding = Finding(case.id, reason=self._short(outcome.reason))
        else:
            faults = self._map(outcome)
            reason = self._short("; ".join((*faults, *outcome.remarks)))
            probabilities = () if outcome.probabilities is None else tuple(outcome.probabilities.tolist())
            finding = Finding(case.id, outcome.score, outcome.p_value, outcome.is_anomalous, reason, probabilities)
            number = len(self.findings)
            leads = self.exhibits.leads(number, outcome.score)
            if outcome.map_seen is not None and (exhibit := _exhibit(outcome, outcome.map_seen, leads)).views:
                self.exhibits.add(number, outcome.score, exhibit)
        self.findings.append(finding)
        of_classes = map(repr, finding.probabilities) if finding.probabilities else [""] * len(self._classes)
        row = (
            *_cells(finding),
            self._reference if finding.is_scored else "",
            *of_classes,
            *(_uids(case) if self._has_dicom else ()),
        )
        self._folder.append(to_csv([row]))

    def _map(self, scored: ScoredScan) -> list[str]:
        """Write the map of a case; returns what went wrong with it, which does not touch the score."""
        try:
            self._write_map(scored)
        except OSError as error:
            if error.errno not in (None, errno.ENAMETOOLONG):  # such as a full disk, on which nothing more is written
                raise
            reason = "the name of the file is too long" if error.errno else str(error)
        except UserError as error:
            reason = str(error)
        except Exception as error:  # of a library, and of this file alone
            reason = f"{type(error).__name__}: {error}"
        else:
            return []
        return [f"its map cannot be written: {' '.join(reason.split())}"]

    def _write_map(self, scored: ScoredScan) -> None:
        """Write the map of a case, if it has one, and of a DICOM series also as a Parametric Map."""
        if scored.anomaly_map is None:
            return
        if scored.scan.affine is None:
            scale = _scale(scored.anomaly_map)
            _write_picture(self._folder.file(f"maps/{scored.case.id}.map.png", scale), scored, scale)
            return
        path = self._folder.file(f"maps/{scored.case.id}.map.nii.gz")
        save_map(path, scored.anomaly_map, scored.scan.own_grid.affine, scored.case.image)
        if scored.case.slices and find_spec("highdicom"):
            files = (scored.case.image, *scored.case.slices)
            try:
                write_parametric_map(self._folder.file(f"maps/{scored.case.id}.map.dcm"), scored.anomaly_map, files)
            except UserError as error:  # an incomplete header; the NIfTI map was written
                say(f"no Parametric Map for {scored.case.id}: {error}")

    def _short(self, reason: str) -> str:
        """Return a reason with the paths of files below the input, as ids are."""
        return reason.replace(f"{self._root.as_posix()}/", "") if self._root != Path() else reason


def _with_masks(cases: list[Case], masks: Path | None) -> list[Case]:
    """Give the cases the masks that were asked for."""
    if masks is None:
        return cases
    paths = {case.id: masks / case.id if masks.is_dir() else masks for case in cases}
    if not any(path.exists() for path in paths.values()):
        raise UserError(f"{masks}: no mask is named like a picture or scan, such as {cases[0].id}; check MASKS=…")
    return [replace(case, mask=paths[case.id] if paths[case.id].exists() else None) for case in cases]


def counted(number: int) -> str:
    """Return a number of files in words.

    Examples:
        >>> counted(1), counted(3)
        ('1 file', '3 files')
    """
    return f"{number} file{'s' * (number != 1)}"


def _facts(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None  # whoever reads the file reports it


def _is_dicom(case: Case) -> bool:
    known = nifti.is_nifti(case.image) or case.image.suffix.lower() in pictures.SUFFIXES
    return not known and dicom.is_dicom(case.image)


def _uids(case: Case) -> tuple[str, str]:
    """Return the SeriesInstanceUID and, of a case that is one file, the SOPInstanceUID; empty where there is none."""
    if not _is_dicom(case):
        return "", ""
    try:
        header = header_of(case.image, ["SeriesInstanceUID", "SOPInstanceUID"])
    except UserError:
        return "", ""
    return text(header, "SeriesInstanceUID"), "" if case.slices else text(header, "SOPInstanceUID")


def _cells(finding: Finding) -> list[str]:
    """Return the cells of a row, which `_findings` reads back."""
    if finding.score is None:
        return [finding.id, "", "", "", finding.reason]
    p_value = "" if finding.p_value is None else repr(finding.p_value)
    label = "" if finding.called is None else str(int(finding.called))
    return [finding.id, repr(finding.score), p_value, label, finding.reason]


def _findings(table: Path, ids: Sequence[str], classes: Sequence[str]) -> list[Finding]:
    """Read back the findings of the first rows of a table."""
    with open_table(table) as file:
        rows = list(csv.DictReader(file))[: len(ids)]
    return [
        Finding(
            id,
            float(row["score"]) if row["score"] else None,
            float(row["p_value"]) if row["p_value"] else None,
            bool(int(row["pred_label"])) if row["pred_label"] else None,
            restored(row["reason"]),
            tuple(float(row[f"{PROBABILITY}{name}"]) for name in classes) if row["score"] else (),
        )
        for id, row in zip(ids, rows, strict=True)
    ]


def _banners(scorer: Scorer, findings: Sequence[Finding]) -> list[Banner]:
    unlike = sum(finding.is_scored and UNLIKE in finding.reason for finding in findings)
    notices = prediction_page.of_reference(scorer.reference)
    if not scorer.expected.is_known:
        notices.append(NOT_CHECKED)
    if unlike:
        text = (
            f"{unlike} of {counted(len(findings))} scored at your word (--anyway), though of another nature "
            "than the scans that the run was trained on. Their scores, p-values and maps mean nothing; the column "
            "reason says what sets them apart."
        )
        notices.insert(0, Banner("warning", "Unlike the training scans", text))
    return notices


def _exhibit(scored: ScoredScan, whole: NDArray[np.float32], scrolled: bool) -> Exhibit:
    """Return the pictures of a case, slices to scroll if asked, and, if the lesion is known, the map's pixel AUROC."""
    scan = scored.cut.scan
    image = to_float(scan.pixels[None])[0].numpy()
    mask, auroc = None if scan.mask is None else scan.mask[0], np.nan
    if mask is not None:
        inside = np.ones(mask.shape, bool) if scan.foreground is None else filled(scan.foreground[0]) | mask
        auroc = ranking.auroc(mask[inside].astype(np.int64), whole[inside].astype(np.float64))
    axis = scored.cut.across or 0
    slices = prediction_page.slices(image, whole, mask, axis) if scrolled else None
    return Exhibit(prediction_page.views(image, whole, mask, axis, scored.reconstruction_seen), auroc, slices)


def _scale(anomaly_map: NDArray[np.float32]) -> int:
    """Return a power of two that no value of a map exceeds; at least 2, the largest difference of pixels in [-1, 1]."""
    scale, largest = 2, float(anomaly_map.max(initial=0, where=np.isfinite(anomaly_map)))
    while scale < largest:
        scale *= 2
    return scale


def _write_picture(path: Path, scored: ScoredScan, scale: int) -> None:
    """Save a map as 16-bit grey: 0 to `scale`, which the file's text `scale` says, map to the full range; less is 0.

    The map lies on the pixels of the file as they are stored, and has its tag of the orientation, so that a viewer
    turns both alike.
    """
    assert scored.anomaly_map is not None
    grey = Image.fromarray((scored.anomaly_map.clip(0, scale) / scale * 65535).round().astype(np.uint16))
    facts = PngInfo()
    facts.add_text("scale", str(scale))
    orientation = 1
    if not _is_dicom(scored.case):
        with Image.open(scored.case.image) as picture:
            orientation = pictures.orientation(picture)
    if orientation not in _UNDO:
        grey.save(path, pnginfo=facts)
        return
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    grey.transpose(_UNDO[orientation]).save(path, pnginfo=facts, exif=exif)
