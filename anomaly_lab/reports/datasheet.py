"""The data sheet: one self-contained HTML page that shows what a detector will be trained and judged on."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment
from numpy.typing import NDArray

from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.reports import html, images
from anomaly_lab.reports.charts import Panel, rate
from anomaly_lab.reports.html import Banner, number, whole
from anomaly_lab.reports.scan_summary import Mixture, ScanSummary, common_axis
from anomaly_lab.reports.svg import Axis, Group, Series, line_chart, stacked_histogram

SECTIONS = {
    "counts": "Who is in which split",
    "pictures": "Pictures",
    "sizes": "Sizes and spacings",
    "numbers": "Intensities",
    "skipped": "Left out as broken",
    "audit": "Leakage audit",
    "store": "Store and settings",
}
SPLITS = {"train": "Training", "val": "Held-out", "test": "Test", "": "Left out"}
UNITS = {"image": "images", "patch": "patches"}
STYLES = {"normal": "series-0", "anomalous": "series-1"}
LISTED = 6  # different sizes that are listed one by one; more are summed up
DRAWN = 5000  # values of a small histogram


class Count(NamedTuple):
    """What a split has of a class: patches (or images), the scans they come from, and their patients."""

    split: str
    kind: str
    rows: int
    scans: int
    patients: int


class Exhibit(NamedTuple):
    """A patch to be looked at: image [C, H, W] in [-1, 1], lesion bool [H, W] where it is known."""

    id: str
    case: str
    split: str
    location: str
    image: NDArray[np.floating[Any]]
    mask: NDArray[np.bool_] | None
    known: bool = True


@dataclass(frozen=True)
class Sheet:
    """What a data sheet shows; no path but below the data's root, nothing of a file's header.

    Attributes:
        experiment: its name.
        made: when, ISO 8601.
        facts: of the data module: name, source, census, official, split_rule, limits, skipped,
            left_out, remarks, audit.
        unit: what a row of the store is: "image" or "patch".
        counts: by split and class.
        left_out: rows in no split, by reason.
        unread: scans that were not read, since no split wants them.
        hidden: anomalies among the training rows, with the number of these (contamination).
        unmasked: anomalous scans whose lesion is unknown.
        scans: their sizes and numbers; None where nothing was read yet.
        galleries: patches of each class.
        store: facts of the store, by name.
        settings: by group, then by name.
    """

    experiment: str
    made: str
    facts: dict[str, Any]
    unit: str
    counts: list[Count]
    left_out: dict[str, int] = field(default_factory=dict)
    unread: int = 0
    hidden: tuple[int, int] = (0, 0)
    unmasked: int = 0
    scans: ScanSummary | None = None
    galleries: dict[str, list[Exhibit]] = field(default_factory=dict)
    store: dict[str, str] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


def write_datasheet(path: Path, sheet: Sheet) -> Path:
    """Write the page, atomically.

    Raises:
        UserError: the place cannot be written.
    """
    scans = sheet.scans
    page = (
        _environment()
        .get_template("datasheet.html.j2")
        .render(
            sheet=sheet,
            facts=sheet.facts,
            scans=scans,
            banners=banners(sheet),
            units=UNITS[sheet.unit],
            galleries={kind: [_hung(exhibit) for exhibit in some] for kind, some in sheet.galleries.items()},
            sizes=_sizes(scans) if scans else [],
            intensities=intensities(scans) if scans else [],
            clipping=clipping(scans) if scans else "",
        )
    )
    write_atomic(path, page)
    return path


def banners(sheet: Sheet) -> list[Banner]:
    """What must be known before any number of the sheet is read."""
    facts, found = sheet.facts, []
    if facts["source"] == "twin":
        text = "These are generated pictures, not patients: files of the real layout with planted lesions."
        found.append(Banner("warning", "Synthetic twin", text))
    there, due = facts["census"].get("images", 0), facts["official"].get("images", 0)
    if facts["source"] == "real" and there < due:
        text = f"{whole(there)} of the {whole(due)} images of the official set are here; its counts were not checked."
        found.append(Banner("note", "Part of the official set", text))
    found += [Banner("warning", "Read with care", remark) for remark in facts["remarks"]]
    if facts["unsplit"]:
        return [*found, Banner("warning", "Nothing can be trained on this yet", f"No split: {facts['unsplit']}.")]
    return found + _split_banners(sheet)


def _split_banners(sheet: Sheet) -> list[Banner]:
    """What must be known of the split."""
    facts, found = sheet.facts, list[Banner]()
    if sheet.hidden[0]:
        hidden, trained = map(whole, sheet.hidden)
        text = f"{hidden} of {trained} training {UNITS[sheet.unit]} are anomalous, on purpose."
        found.append(Banner("warning", "Contaminated training", text))
    if skipped := len(facts["skipped"]):
        files = "file was" if skipped == 1 else "files were"
        found.append(Banner("warning", "Broken files", f"{whole(skipped)} {files} left out; they are listed below."))
    audit = facts["audit"]
    if shared := len(audit["shared_patients"]):
        text = f"{whole(shared)} patient{'s' * (shared > 1)} in more than one split: the test is not independent."
        found.append(Banner("warning", "Patients across splits", text))
    if crossing := audit["crossing"]:
        text = f"{whole(crossing)} pair{'s' * (crossing > 1)} of (nearly) the same picture in two splits."
        found.append(Banner("warning", "Pictures across splits", text))
    if not any(count.split == "val" for count in sheet.counts):
        found.append(
            Banner("warning", "No held-out normals", "Nothing can set a threshold; raise data.split.val_fraction.")
        )
    if not any(count.split == "test" and count.kind != "normal" for count in sheet.counts):
        found.append(
            Banner("warning", "Nothing anomalous to judge", "The test split has no anomaly; change the split.")
        )
    if sheet.unmasked:
        scans = "scan has" if sheet.unmasked == 1 else "scans have"
        text = f"{whole(sheet.unmasked)} anomalous {scans} no mask, so pixels are not judged there."
        found.append(Banner("note", "Lesions unknown", text))
    return found


def intensities(scans: ScanSummary) -> list[Panel]:
    """The numbers of normal and anomalous scans, as read and as stored, on one axis each."""
    if not scans.read:
        return []
    edges = common_axis(list(scans.read.values()))
    low, high = (f(mixture.range[end] for mixture in scans.read.values()) for end, f in enumerate((min, max)))
    note = f"Least {number(low)}, greatest {number(high)}."
    stored = np.linspace(0, 1, 65)
    return [
        _distribution("As read", scans.read, edges, "number in the file", note),
        _distribution(
            "As stored", scans.stored, stored, "fraction of full scale", "What detectors see, −1 to 1 there."
        ),
    ]


def clipping(scans: ScanSummary) -> str:
    """What fell outside the range that is kept, in a sentence."""
    if not any(share for share, _ in scans.clipped):
        return "No number was clipped on the way."
    share = float(np.mean([share for share, _ in scans.clipped]))
    worst, case = max(scans.clipped)
    return (
        f"Clipped to the darkest or the brightest: {_percent(share)} of a scan’s foreground on average, "
        f"at most {_percent(worst)} ({case})."
    )


def _distribution(title: str, mixtures: dict[str, Mixture], edges: NDArray[np.float64], axis: str, note: str) -> Panel:
    """Outlines of histograms; bins that tower over all others are cut off and named."""
    shares = {kind: mixture.histogram(edges) for kind, mixture in sorted(mixtures.items(), reverse=True)}
    highest = np.max(list(shares.values()), axis=0)
    top, third = float(highest.max()), float(np.sort(highest)[-3])
    cap = 1.25 * third if top > 3 * third > 0 else 1.05 * top
    lines = [
        Series(
            f"{kind} ({whole(mixtures[kind].count)} scan{'s' * (mixtures[kind].count != 1)})",
            np.repeat(edges, 2)[1:-1].tolist(),
            (100 * np.repeat(np.minimum(some, cap), 2)).tolist(),
            STYLES[kind],
        )
        for kind, some in shares.items()
    ]
    if len(lines) == 1:  # a single line has no legend
        note = f"{lines[0].name}. {note}"
    towers = [
        f"{number(float(edges[bin]))} to {number(float(edges[bin + 1]))} holds "
        + ", ".join(f"{_percent(float(some[bin]))} of {kind}" for kind, some in shares.items())
        for bin in np.flatnonzero(highest > cap)
    ]
    note += f" Cut off at the top: {'; '.join(towers)}." if towers else ""
    drawn = line_chart(lines, Axis(axis, edges[0], edges[-1]), Axis("share, %", 0, 100 * cap), 200)
    return Panel(title, drawn, note)


def _sizes(scans: ScanSummary) -> list[dict[str, Any]]:
    """Sizes and spacings: a list where there are few, else their spread along each axis."""
    unit = "voxels" if scans.volumes else "pixels"
    found = []
    for title, measure, counts in (("Size", unit, scans.sizes), ("Spacing", "mm", scans.spacings)):
        few = len(counts) <= LISTED
        if counts:
            listed = [(" × ".join(map(number, size)), times) for size, times in counts.most_common()] if few else []
            spread = None if few else Panel(f"{title} of the scans", _spread(counts, measure))
            extents = scans.extents(counts)
            found.append(
                {"title": title, "unit": measure, "listed": listed, "extents": extents, "spread": spread}
                | {"different": len(counts)}
            )
    return found


def _spread(counts: Counter[Any], unit: str) -> str:
    """One histogram an axis; of very many scans evenly thinned values."""
    axes = max(map(len, counts))
    names = ("axis 1", "axis 2", "axis 3") if axes == 3 else ("height", "width")
    groups = []
    for i, name in enumerate(names):
        alike = [(value[i], times) for value, times in counts.items() if len(value) == axes]
        values = np.repeat(*map(np.array, zip(*sorted(alike), strict=True)))
        groups.append(Group(name, values[:: math.ceil(len(values) / DRAWN)].tolist(), "normal"))
    return stacked_histogram(groups, unit)


def _hung(exhibit: Exhibit) -> dict[str, Any]:
    """An exhibit as the page has it."""
    lesion = exhibit.mask is not None and exhibit.mask.any()
    return {
        "id": exhibit.id,
        "case": exhibit.case,
        "split": exhibit.split,
        "location": exhibit.location,
        "known": exhibit.known,
        "size": exhibit.image.shape[-2:],
        "image": images.data_uri(images.shades(exhibit.image)),
        "outline": images.outline(exhibit.mask) if exhibit.mask is not None and lesion else "",
    }


def _percent(share: float) -> str:
    return f"{100 * share:.{2 if share < 0.995 else 3}g}\u00a0%"


def _words(value: Any) -> str:
    """A setting as a person would write it."""
    if value is None:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_words, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _environment() -> Environment:
    environment = html.environment(rate=rate, words=_words)
    environment.globals |= {"sections": SECTIONS, "splits": SPLITS}
    return environment
