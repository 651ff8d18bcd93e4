"""The page on new files: what the run is, all scores, and pictures of the most anomalous files with anomaly maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_lab.evaluation.reference import Reference
from anomaly_lab.experiment.regular import regular
from anomaly_lab.reports import counterpart, decisions, html, images, run_report
from anomaly_lab.reports.charts import Row, rate
from anomaly_lab.reports.counterpart import Pair
from anomaly_lab.reports.html import Banner
from anomaly_lab.reports.record import Record
from anomaly_lab.reports.score_bar import ScoreBar

CASES_WITH_PICTURES = 40  # the cases with the highest scores get pictures
CASES_WITH_COUNTERPARTS = 10  # of these, so many are also shown beside their counterparts, in full size
CASES_IN_DETAIL = 5  # of these, so many have large pictures; those of the others have SMALL pixels per side at most
SMALL, THUMBNAIL = 160, 56
SLICE_SIDE = 256  # pixels per side of the views of a volume, of which there are several
ROWS = 1000  # files in the table of the page
VOLUMES = 5  # among so many cases with the highest scores a volume can be scrolled slice by slice
MOST_SLICES = 40  # evenly spaced ones of a volume that can be scrolled
SLICES = 5  # shown of a volume, besides the slice with the largest part of a known lesion
APART = 20  # shown slices are at least 1/APART of the volume apart, because neighbours look alike
NO_NORMALS = Banner(
    "note",
    "No validation normals",
    "The run has none, so there is no threshold and no p-value. A map made from scores then compares a scan only with "
    "itself: 0 is its least anomalous window, 1 its most anomalous one.",
)
NOT_CHECKED = Banner(
    "warning",
    "Input not checked",
    "The run was trained by an older version, which did not record the nature of its training scans. Whether these "
    "files are of the same kind, modality, voxel size and intensity range was not compared: see to it yourself.",
)
BY_SCAN = Banner(
    "note",
    "Compared by scan",
    "The run was evaluated window by window. A scan’s score is the highest of its windows, so it is compared with the "
    "highest scores of the run’s validation scans: threshold and p-values here are others than those of its report.",
)
_OF_THE_RUN = {  # what the notices of a report say of itself is said of the run here
    "Synthetic twin": "The run was trained on generated images, not on patients. Its scores show that the software "
    "works; they say nothing about these files.",
    "Unfinished run": "The run has not been finished; these are the scores of its present state.",
}


class View(NamedTuple):
    """A picture of a case.

    Attributes:
        title: which slice of a volume; empty for an image.
        image: [C, H, W] in [-1, 1].
        anomaly_map: [H, W].
        mask: known lesion, bool [H, W], or None.
        reconstruction: [C, H, W] in [-1, 1], or None.
        number: of the slice of a volume, from 1; 0 for an image.
    """

    title: str
    image: NDArray[np.floating[Any]]
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_] | None = None
    reconstruction: NDArray[np.floating[Any]] | None = None
    number: int = 0


class Slices(NamedTuple):
    """Slices of a volume to scroll through, SMALL pixels per side at most.

    Attributes:
        number: of each slice, from 1, [N].
        image: uint8 [N, H, W], or [N, H, W, 3] of a volume in colour.
        anomaly_map: float16 [N, H, W].
        mask: known lesion, bool [N, H, W], or None.
    """

    number: NDArray[np.int64]
    image: NDArray[np.uint8]
    anomaly_map: NDArray[np.float16]
    mask: NDArray[np.bool_] | None = None


OPTIONAL = ("mask", "reconstruction")  # fields of a view that it may lack


@dataclass(frozen=True)
class Finding:
    """Result for a new file.

    Attributes:
        id: path below the folder.
        score: raw score, higher = more anomalous; None for a file that was not scored.
        p_value: conformal p-value; None without a score or without validation normals.
        called: whether the score exceeds the threshold; None without one of them.
        reason: why there is no score, or what to know of it; empty if all is well.
        probabilities: of the run's classes; empty without a score or classes.

    Examples:
        >>> Finding("torn.png", reason="the picture cannot be read").is_scored
        False
    """

    id: str
    score: float | None = None
    p_value: float | None = None
    called: bool | None = None
    reason: str = ""
    probabilities: tuple[float, ...] = ()

    @property
    def is_scored(self) -> bool:
        """Whether the file has a score."""
        return self.score is not None


class Exhibit(NamedTuple):
    """The pictures of a case, and how well its map finds the known lesion.

    Attributes:
        views: at least one.
        auroc: pixel AUROC of the map against the known lesion, within the foreground; NaN without a lesion.
        slices: of a volume, to scroll through; None for an image.
    """

    views: tuple[View, ...]
    auroc: float = math.nan
    slices: Slices | None = None

    @property
    def has_lesion(self) -> bool:
        """Whether the case has a known lesion."""
        return not math.isnan(self.auroc)


class Exhibits:
    """The pictures of the highest scores, kept in files until the page is written, also by a process that goes on.

    Args:
        folder: for the files.

    Examples:
        >>> import tempfile
        >>> view = View("", np.zeros((1, 4, 4)), np.zeros((4, 4), np.float32), None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exhibits = Exhibits(Path(folder))
        ...     for number in range(100):
        ...         exhibits.add(number, float(number), Exhibit((view,)))
        ...     min(number for number, _ in exhibits)
        60
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._scores: dict[int, float] = {}
        for path in folder.glob("*.npz"):
            with np.load(regular(path)) as held:
                self._scores[int(path.stem)] = float(held["score"])

    def add(self, number: int, score: float, exhibit: Exhibit) -> None:
        """Keep the pictures of a case, if its score is among the highest CASES_WITH_PICTURES.

        Args:
            number: of the case, which says where equal scores stand.
            score: its score.
            exhibit: its pictures.
        """
        arrays: dict[str, Any] = {"score": score, "auroc": exhibit.auroc}
        for place, view in enumerate(exhibit.views):
            named = zip(View._fields, view, strict=True)
            arrays |= {f"{place} {name}": value for name, value in named if value is not None}
        if exhibit.slices is not None:
            arrays |= {f"slices_{name}": value for name, value in exhibit.slices._asdict().items() if value is not None}
        self._scores[number] = score
        kept = self._kept()
        if number in kept:
            path = self._folder / f"{number}.npz"
            with path.with_suffix(".partial").open("wb") as file:
                np.savez(file, **arrays)
            path.with_suffix(".partial").replace(path)
        for other in self._scores.keys() - kept:
            del self._scores[other]
            (self._folder / f"{other}.npz").unlink(missing_ok=True)

    def leads(self, number: int, score: float) -> bool:
        """Return whether a case is among the VOLUMES highest scores so far, so that its slices may be shown.

        Args:
            number: of the case.
            score: its score.
        """
        ahead = sum((-s, n) < (-score, number) for n, s in self._scores.items() if n != number)
        return ahead < VOLUMES

    def __iter__(self) -> Iterator[tuple[int, Exhibit]]:
        """Yield the number and the pictures of each case, the highest score first; slices of the first VOLUMES only."""
        for place, number in enumerate(self._kept()):
            with np.load(self._folder / f"{number}.npz") as held:
                count = len({name.partition(" ")[0] for name in held.files if " " in name})
                shown = tuple(
                    View(
                        title=str(held[f"{i} title"]),
                        image=held[f"{i} image"],
                        anomaly_map=held[f"{i} anomaly_map"],
                        number=int(held[f"{i} number"]),
                        **{part: held[name] for part in OPTIONAL if (name := f"{i} {part}") in held.files},
                    )
                    for i in range(count)
                )
                names = {part: f"slices_{part}" for part in Slices._fields if f"slices_{part}" in held.files}
                is_shown = bool(names) and place < VOLUMES
                slices = Slices(**{part: held[name] for part, name in names.items()}) if is_shown else None
                yield number, Exhibit(shown, float(held["auroc"]), slices)

    def _kept(self) -> list[int]:
        return sorted(self._scores, key=lambda number: (-self._scores[number], number))[:CASES_WITH_PICTURES]


def views(
    image: NDArray[np.floating[Any]],
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    axis: int = 0,
    reconstruction: NDArray[np.floating[Any]] | None = None,
) -> tuple[View, ...]:
    """Choose the pictures of a case: the whole image, or the slices of a volume with the highest map values, in order.

    Args:
        image: [C, *S] in [-1, 1].
        anomaly_map: [*S].
        mask: known lesion, bool [*S], or None.
        axis: axis of a volume that its slices are perpendicular to.
        reconstruction: [C, *S] in [-1, 1], or None.

    Examples:
        >>> anomaly_map = np.zeros((10, 4, 4), np.float32)
        >>> anomaly_map[3] = 1.0  # a volume of ten slices, of which the fourth is conspicuous
        >>> [view.title for view in views(np.zeros((1, 10, 4, 4)), anomaly_map, mask=None)]
        ['slice 4 of 10']
    """
    if anomaly_map.ndim == 2:
        return (View("", image, anomaly_map, mask, reconstruction),)
    image, anomaly_map = np.moveaxis(image, axis + 1, 1), np.moveaxis(anomaly_map, axis, 0)
    mask = None if mask is None else np.moveaxis(mask, axis, 0)
    reconstruction = None if reconstruction is None else np.moveaxis(reconstruction, axis + 1, 1)
    chosen = _hottest(anomaly_map.max((1, 2)))
    if mask is not None and mask.any():
        chosen.add(int(mask.sum((1, 2)).argmax()))
    return tuple(
        View(
            f"slice {i + 1} of {len(anomaly_map)}",
            image[:, i],
            anomaly_map[i],
            None if mask is None else mask[i],
            None if reconstruction is None else reconstruction[:, i],
            i + 1,
        )
        for i in sorted(chosen)
    )


def slices(
    image: NDArray[np.floating[Any]],
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    axis: int = 0,
) -> Slices | None:
    """Return the slices of a volume to scroll through, at most MOST_SLICES, evenly spaced; None of an image.

    Args:
        image: [C, *S] in [-1, 1].
        anomaly_map: [*S].
        mask: known lesion, bool [*S], or None.
        axis: axis of a volume that its slices are perpendicular to.

    Examples:
        >>> found = slices(np.zeros((1, 100, 320, 200)), np.zeros((100, 320, 200), np.float32), mask=None)
        >>> found.image.shape, found.number[:3].tolist(), int(found.number[-1])
        ((40, 160, 100), [1, 4, 6], 100)
    """
    if anomaly_map.ndim == 2:
        return None
    depth = anomaly_map.shape[axis]
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, MOST_SLICES)).round().astype(int))
    shown = ((images.shades(np.take(image, i, axis + 1)) * 255).round().astype(np.uint8) for i in chosen)
    grey = len(image) != 3
    masks = None if mask is None else [_reduced(np.take(mask, i, axis).astype(np.float32)) >= 0.5 for i in chosen]
    return Slices(
        chosen + 1,
        np.stack([_reduced(colours[..., 0] if grey else colours) for colours in shown]),
        np.stack([_reduced(np.nan_to_num(np.take(anomaly_map, i, axis)).astype(np.float32)) for i in chosen]).astype(
            np.float16
        ),
        None if masks is None else np.stack(masks),
    )


def _reduced(values: NDArray[Any]) -> NDArray[Any]:
    """Return a picture, uint8 or float32 [H, W] or uint8 [H, W, 3], of SMALL pixels per side at most."""
    height, width = values.shape[:2]
    share = min(1.0, SMALL / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))


class Scoring(NamedTuple):
    """What the page says of a prediction as a whole.

    Attributes:
        run: name of the run whose detector scored the files.
        provenance: content of the run's provenance.json.
        metrics: content of its metrics.json.
        normals: number of its validation normals.
        normal_scores: their scores, for a drawing of where a score lies; empty for none.
        reference: what they are; empty for what the run's threshold says.
        log: lines of its metrics.jsonl.
        left_out: files that are no scans by the rules of the run, with the reason.
        banners: notices of this prediction, above those of the run.
        classes: names of the classes that the run's detector has learnt.
    """

    run: str
    provenance: Mapping[str, Any]
    metrics: Mapping[str, Any]
    normals: int
    log: Sequence[Row] = ()
    left_out: Mapping[str, str] = {}
    banners: Sequence[Banner] = ()
    classes: Sequence[str] = ()
    normal_scores: Sequence[float] = ()
    reference: str = ""

    def compared_with(self, reference: Reference) -> Scoring:
        """Return the same with the normals that the files are compared with, and the threshold that these set."""
        return self._replace(
            normals=len(reference.normals),
            normal_scores=reference.normals.tolist(),
            reference=reference.words,
            metrics={**self.metrics, "threshold": reference.threshold},
        )


def caveats(record: Record, reference: Reference, is_known: bool) -> list[str]:
    """Return all that whoever has a score of a run must know: what its report warns of, and of its normals.

    Args:
        record: of the run.
        reference: its normals.
        is_known: whether the run recorded the nature of its training scans, so that others are refused.

    Returns:
        A text each, beginning with its title.
    """
    notices = [*banners(record.provenance, record.metrics, record.log), *of_reference(reference)]
    return [f"{notice.title}: {notice.text}" for notice in [*notices, *([] if is_known else [NOT_CHECKED])]]


def of_reference(reference: Reference) -> list[Banner]:
    """Return what is to be said of the normals that new files are compared with.

    Examples:
        >>> few = Reference(np.zeros(1), {"value": None}, unit="scans", lacking="No label: 1 scan is too few.")
        >>> [notice.title for notice in of_reference(few)]
        ['No label']
    """
    if reference.lacking:
        title, _, text = reference.lacking.partition(": ")
        return [Banner("warning", title, f"{text[:1].upper()}{text[1:]}")]
    if not len(reference.normals):
        return [NO_NORMALS]
    return [BY_SCAN] if reference.unit == "scans" else []


def banners(provenance: Mapping[str, Any], metrics: Mapping[str, Any], log: Sequence[Row] = ()) -> list[Banner]:
    """Return everything that the report of a run warns of; its scores of new files deserve no more trust.

    Args:
        provenance: content of the run's provenance.json.
        metrics: content of its metrics.json.
        log: lines of its metrics.jsonl.

    Examples:
        >>> for notice in banners({"source": "twin", "budget": "smoke", "finished": "2026"}, {"threshold": {}}):
        ...     print(notice.title)
        Synthetic twin
        Reduced budget: smoke
    """
    notices = [*run_report.banners(dict(provenance), dict(metrics)), *run_report.stalled(log)]
    notices = [notice._replace(text=_OF_THE_RUN.get(notice.title, notice.text)) for notice in notices]
    if (metrics.get("threshold") or {}).get("uses_test"):
        text = "The threshold was set with the test labels of the run, to reproduce results published that way."
        notices.append(Banner("warning", "Threshold", text))
    return notices


def render(scoring: Scoring, findings: Sequence[Finding], exhibits: Sequence[tuple[int, Exhibit]] = ()) -> str:
    """Return the page: the run and its caveats, a table of all files, and pictures of those with the highest scores.

    Args:
        scoring: what is said of all files.
        findings: of all files, in order, at least one.
        exhibits: the number of a finding and its pictures, the highest score first.

    Examples:
        >>> finding = Finding("a.png", 0.8, 0.05, called=True)
        >>> page = render(Scoring("fanogan_headct/1", {}, {}, normals=19), [finding])
        >>> "1 file, 1 above the threshold" in page, "(1 + k) / (1 + n)" in page
        (True, True)
    """
    ordered = sorted(
        (finding for finding in findings if finding.score is not None), key=lambda finding: -(finding.score or 0.0)
    )
    maps = [view.anomaly_map.ravel() for _, exhibit in exhibits for view in exhibit.views]
    brightest = float(np.nanquantile(np.concatenate(maps), 0.995)) if maps else 1.0
    pairs = [pair for number, exhibit in exhibits if (pair := _pair(findings[number], exhibit))]
    threshold = (scoring.metrics.get("threshold") or {}).get("value")
    sides = [images.ENLARGED] * CASES_IN_DETAIL + [SMALL] * len(exhibits)
    page = html.environment(rate=rate).get_template("prediction_page.html.j2")
    return page.render(
        reference=scoring.reference or decisions.reference(scoring.metrics.get("threshold") or {}),
        bar=ScoreBar(scoring.normal_scores, threshold) if len(scoring.normal_scores) else None,
        thumbnails={findings[number].id: (place, _thumbnail(each)) for place, (number, each) in enumerate(exhibits)},
        rows=ROWS,
        scoring=scoring,
        cuts=_cuts(scoring),
        detector=str((scoring.provenance.get("detector") or {}).get("class") or "").rpartition(".")[2],
        threshold=scoring.metrics.get("threshold") or {},
        findings=findings,
        ordered=ordered,
        failed=[{"file": finding.id, "reason": finding.reason} for finding in findings if not finding.is_scored],
        cases=[
            (findings[number], exhibit, list(_pictures(exhibit, brightest, side)), list(_frames(exhibit, brightest)))
            for (number, exhibit), side in zip(exhibits, sides, strict=False)
        ],
        counterparts=counterpart.shown(pairs[:CASES_WITH_COUNTERPARTS], brightest),
        num_counterparts=len(pairs),
        outlined=any(exhibit.has_lesion for _, exhibit in exhibits),
        banners=[*scoring.banners, *banners(scoring.provenance, scoring.metrics, scoring.log)],
        heat_bar=images.data_uri(images.heat(np.linspace(0, 1, 64)[None].repeat(4, axis=0))),
    )


def _pair(finding: Finding, exhibit: Exhibit) -> Pair | None:
    """Return the view with the highest map value beside its counterpart; None without one."""
    view = max(exhibit.views, key=lambda view: float(view.anomaly_map.max()))
    if view.reconstruction is None:
        return None
    facts = {"finding": finding, "title": view.title}
    return Pair(facts, view.image, view.reconstruction, view.anomaly_map, view.mask)


def _cuts(scoring: Scoring) -> list[float]:
    """Return the thresholds of the classes; empty if they exclude each other or are not known."""
    each = (scoring.metrics.get("classes") or {}).get("each") or {}
    cuts = [cut for name in scoring.classes if (cut := (each.get(name) or {}).get("threshold")) is not None]
    return cuts if len(cuts) == len(scoring.classes) else []


def _hottest(heat: NDArray[np.float32]) -> set[int]:
    """Return the slices with the highest values, at most SLICES and none close to another."""
    chosen: list[int] = []
    for i in np.argsort(-heat, kind="stable").tolist():
        if heat[i] > 0 and all(abs(i - other) * APART >= len(heat) for other in chosen):
            chosen.append(i)
    return set(itertools.islice(chosen, SLICES))


def _thumbnail(exhibit: Exhibit) -> str:
    """Return the view with the highest map value as a small picture."""
    view = max(exhibit.views, key=lambda view: float(view.anomaly_map.max()))
    return images.picture_uri(images.shades(view.image), THUMBNAIL)


def _frames(exhibit: Exhibit, brightest: float) -> Iterator[dict[str, Any]]:
    """Yield the slices of a case that are no views of it, as the template needs them."""
    if exhibit.slices is None:
        return
    seen = {view.number for view in exhibit.views}
    for i, number in enumerate(exhibit.slices.number.tolist()):
        if number in seen:
            continue
        image = np.atleast_3d(exhibit.slices.image[i]).astype(np.float64) / 255
        image = np.broadcast_to(image, (*image.shape[:2], 3))
        mask = None if exhibit.slices.mask is None else exhibit.slices.mask[i]
        overlay = images.overlay(
            image.transpose(2, 0, 1) * 2 - 1, exhibit.slices.anomaly_map[i].astype(float), brightest
        )
        yield {
            "number": number,
            "size": image.shape[:2],
            "image": images.picture_uri(image, exact=0),
            "overlay": images.picture_uri(overlay, exact=0),
            "outline": "" if mask is None or not mask.any() else images.outline(mask),
        }


def _pictures(exhibit: Exhibit, brightest: float, largest: int) -> Iterator[dict[str, Any]]:
    """Yield the views of a case as the template needs them."""
    largest = min(largest, SLICE_SIDE) if len(exhibit.views) > 1 else largest
    for view in exhibit.views:
        yield {
            "title": view.title,
            "number": view.number,
            "size": view.anomaly_map.shape,
            "image": images.picture_uri(images.shades(view.image), largest),
            "overlay": images.picture_uri(images.overlay(view.image, view.anomaly_map, brightest), largest),
            "outline": "" if view.mask is None else images.outline(view.mask),
        }
