"""The data sheet: a self-contained HTML page about the data that a detector will be trained and evaluated on."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment
from numpy.typing import NDArray

from anomaly_lab.experiment.record import remarks_of
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.reports import html, images, likeness, shortcuts
from anomaly_lab.reports.charts import Panel, figure, rate
from anomaly_lab.reports.html import Banner, number, whole
from anomaly_lab.reports.scan_summary import Mixture, ScanSummary, common_axis
from anomaly_lab.reports.svg import Axis, Group, Series, line_chart, stacked_histogram

SECTIONS = {
    "counts": "Splits",
    "pictures": "Example images",
    "sizes": "Sizes and spacings",
    "numbers": "Intensities",
    "skipped": "Unreadable files",
    "shortcuts": "Shortcuts",
    "audit": "Leakage audit",
    "store": "Store and settings",
}
SPLITS = {"train": "Training", "val": "Validation", "test": "Test", "": "Left out"}
UNITS = {"image": "images", "patch": "patches"}
STYLES = {"normal": "series-0", "anomalous": "series-1"}
LISTED = 6  # up to this many different sizes are listed; more are summarised
DRAWN = 5000  # values in a small histogram at most


class Count(NamedTuple):
    """Number of patches (or images) of a class in a split, of the scans they come from, and of the patients.

    Attributes:
        split: "train", "val" or "test".
        kind: class name.
        rows: patches or images.
        scans: scans they come from.
        patients: patients they come from.
    """

    split: str
    kind: str
    rows: int
    scans: int
    patients: int


class Exhibit(NamedTuple):
    """A patch (or image) to show.

    Attributes:
        id: of the patch.
        case: id of its scan.
        split: "train", "val", "test", or "" for none.
        location: first pixel of the patch in its scan, as text; empty for whole images.
        image: [C, H, W] in [-1, 1].
        mask: lesion, bool [H, W]; None without a mask.
        known: False if the image is anomalous, but where the lesion is is unknown.
    """

    id: str
    case: str
    split: str
    location: str
    image: NDArray[np.floating[Any]]
    mask: NDArray[np.bool_] | None
    known: bool = True


@dataclass(frozen=True)
class Sheet:
    """Content of a data sheet. Paths are relative to the data's root, and nothing comes from a file's header.

    Attributes:
        experiment: name of the experiment.
        made: time of writing, ISO 8601.
        facts: of the data module: name, source, census, official, split_rule, limits, skipped,
            left_out, remarks, audit.
        unit: what a row of the store is: "image" or "patch".
        counts: by split and class.
        left_out: number of rows in no split, by reason.
        unread: number of scans that were not read because no split needs them.
        hidden: number of anomalies among the training rows (contamination), and number of training rows.
        unmasked: number of anomalous scans whose lesion is unknown.
        scans: sizes and intensities; None if nothing has been read yet.
        galleries: example patches of each class.
        store: facts about the store, by name.
        settings: values by group and name.
        alike: data URI of judged normals above the training pictures that are most like them; empty for none.
        shortcuts: result of the shortcut audit; None if a class has too few cases.
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
    alike: str = ""
    shortcuts: dict[str, Any] | None = None


def write_datasheet(path: Path, sheet: Sheet) -> Path:
    """Write the page atomically and return its path.

    Args:
        path: of the HTML file.
        sheet: content of the page.

    Raises:
        UserError: the file cannot be written.

    Examples:
        >>> import tempfile
        >>> audit = {"shared_patients": [], "crossing": 0, "checked": 2, "compared": 2}
        >>> facts = {"name": "toy", "source": "twin", "census": {"images": 2}, "official": {}, "unsplit": ""}
        >>> facts |= {"split_rule": "as given", "limits": {}, "skipped": [], "left_out": {}, "remarks": []}
        >>> facts["audit"] = audit
        >>> settings = {"Patches": {"patch_size": (32, 32)}}
        >>> sheet = Sheet("toy", "2030-01-01", facts, "image", [Count("train", "normal", 2, 2, 2)], settings=settings)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_datasheet(Path(folder) / "datasheet.html", sheet).name
        'datasheet.html'
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
            galleries={kind: [_figure(exhibit) for exhibit in group] for kind, group in sheet.galleries.items()},
            sizes=_sizes(scans) if scans else [],
            intensities=intensities(scans) if scans else [],
            clipping=clipping(scans) if scans else "",
            shortcut_panels=shortcuts.panels(sheet.shortcuts) if sheet.shortcuts else [],
            shortcut_notice=shortcuts.banners(sheet.shortcuts),
        )
    )
    write_atomic(path, page)
    return path


def banners(sheet: Sheet) -> list[Banner]:
    """List the warnings and notes that stand at the top of the sheet; `write_datasheet` includes them."""
    facts, notices = sheet.facts, []
    if facts["source"] == "twin":
        text = (
            "These images are generated, not from patients: files in the layout of the real data, with planted lesions."
        )
        notices.append(Banner("warning", "Synthetic twin", text))
    present, expected = facts["census"].get("images", 0), facts["official"].get("images", 0)
    if facts["source"] == "real" and present < expected:
        text = (
            f"{whole(present)} of the {whole(expected)} images of the official data set are present; their numbers per "
            "class were not checked."
        )
        notices.append(Banner("note", "Part of the official data set", text))
    notices += [Banner("warning", "Read with care", remark) for remark in remarks_of(facts, named=True)]
    notices += shortcuts.banners(sheet.shortcuts)
    if facts["unsplit"]:
        text = f"The data could not be split: {facts['unsplit']}."
        return [*notices, Banner("warning", "Training is not possible yet", text)]
    return notices + _split_banners(sheet)


def _split_banners(sheet: Sheet) -> list[Banner]:
    """List the warnings and notes about the split."""
    facts, notices = sheet.facts, list[Banner]()
    if sheet.hidden[0]:
        num_anomalous, num_training = map(whole, sheet.hidden)
        text = f"{num_anomalous} of {num_training} training {UNITS[sheet.unit]} are anomalous, as configured."
        notices.append(Banner("warning", "Contaminated training", text))
    if skipped := len(facts["skipped"]):
        files = "file was" if skipped == 1 else "files were"
        text = f"{whole(skipped)} {files} left out; see the list below."
        notices.append(Banner("warning", "Unreadable files", text))
    notices += likeness.banners(facts["audit"], named=True)
    if not any(count.split == "val" for count in sheet.counts):
        text = "Without them no threshold can be set; raise data.split.val_fraction."
        notices.append(Banner("warning", "No validation normals", text))
    if not any(count.split == "test" and count.kind != "normal" for count in sheet.counts):
        text = "The test split contains no anomalous image, so detection cannot be evaluated; change the split."
        notices.append(Banner("warning", "No anomalies in the test split", text))
    if sheet.unmasked:
        scans = "scan has" if sheet.unmasked == 1 else "scans have"
        text = f"{whole(sheet.unmasked)} anomalous {scans} no mask and are left out of the pixel metrics."
        notices.append(Banner("note", "Lesions unknown", text))
    return notices


def intensities(scans: ScanSummary) -> list[Panel]:
    """Plot the intensity distributions of normal and anomalous scans, as read and as stored; empty if none was read.

    Examples:
        >>> scans = ScanSummary()
        >>> fact = {"size": (4, 4), "spacing": None, "lesion": False, "windows": 1, "clipped": 0.0, "case": "a"}
        >>> scans.add(fact | {"histogram": [8, 8], "range": (0, 255), "stored_histogram": [8, 8]}, kind="normal")
        >>> [panel.title for panel in intensities(scans)]
        ['As read', 'As stored']
    """
    if not scans.read:
        return []
    edges = common_axis(list(scans.read.values()))
    low, high = (f(mixture.range[end] for mixture in scans.read.values()) for end, f in enumerate((min, max)))
    note = f"Minimum {number(low)}, maximum {number(high)}."
    stored = np.linspace(0, 1, 65)
    return [
        _distribution("As read", scans.read, edges, "value in the file", note),
        _distribution(
            "As stored", scans.stored, stored, "fraction of full scale", "Detectors see this range as −1 to 1."
        ),
    ]


def clipping(scans: ScanSummary) -> str:
    r"""Describe how many values were clipped by preprocessing, in a sentence.

    Examples:
        >>> clipping(ScanSummary(clipped=[(0.0, "a"), (0.2, "b")]))
        'Clipped to the darkest or brightest value: 10\xa0% of a scan’s foreground on average, at most 20\xa0% (b).'
    """
    if not any(share for share, _ in scans.clipped):
        return "No value was clipped."
    share = float(np.mean([share for share, _ in scans.clipped]))
    worst, case = max(scans.clipped)
    return (
        f"Clipped to the darkest or brightest value: {_percent(share)} of a scan’s foreground on average, "
        f"at most {_percent(worst)} ({case})."
    )


def _distribution(title: str, mixtures: dict[str, Mixture], edges: NDArray[np.float64], axis: str, note: str) -> Panel:
    """Plot the outlines of histograms; bins that are far higher than all others are cut off and named in the note."""
    shares = {kind: mixture.histogram(edges) for kind, mixture in sorted(mixtures.items(), reverse=True)}
    highest = np.max(list(shares.values()), axis=0)
    top, third = float(highest.max()), float(np.sort(highest)[-3])
    cap = 1.25 * third if top > 3 * third > 0 else 1.05 * top
    lines = [
        Series(
            f"{kind} ({whole(mixtures[kind].count)} scan{'s' * (mixtures[kind].count != 1)})",
            np.repeat(edges, 2)[1:-1].tolist(),
            (100 * np.repeat(np.minimum(in_bins, cap), 2)).tolist(),
            STYLES[kind],
        )
        for kind, in_bins in shares.items()
    ]
    if len(lines) == 1:  # the chart shows no legend for a single line
        note = f"{lines[0].name}. {note}"
    cut_off = [
        f"{number(float(edges[bin]))} to {number(float(edges[bin + 1]))} holds "
        + ", ".join(f"{_percent(float(in_bins[bin]))} of {kind}" for kind, in_bins in shares.items())
        for bin in np.flatnonzero(highest > cap)
    ]
    note += f" Bars cut off at the top: {'; '.join(cut_off)}." if cut_off else ""
    svg = line_chart(lines, Axis(axis, edges[0], edges[-1]), Axis("share, %", 0, 100 * cap), 200)
    return Panel(title, svg, note)


def _sizes(scans: ScanSummary) -> list[dict[str, Any]]:
    """Summarise sizes and spacings: list them if there are few, otherwise give ranges and histograms per axis."""
    unit = "voxels" if scans.volumes else "pixels"
    tables = []
    for title, measure, counts in (("Size", unit, scans.sizes), ("Spacing", "mm", scans.spacings)):
        few = len(counts) <= LISTED
        if counts:
            listed = [(" × ".join(map(number, size)), times) for size, times in counts.most_common()] if few else []
            spread = None if few else Panel(f"{title} of the scans", _spread(counts, measure))
            extents = scans.extents(counts)
            tables.append(
                {"title": title, "unit": measure, "listed": listed, "extents": extents, "spread": spread}
                | {"different": len(counts)}
            )
    return tables


def _spread(counts: Counter[Any], unit: str) -> str:
    """Plot one histogram per axis; from very many scans, only evenly spaced values of the sorted ones are used."""
    axes = max(map(len, counts))
    names = ("axis 1", "axis 2", "axis 3") if axes == 3 else ("height", "width")
    groups = []
    for i, name in enumerate(names):
        alike = [(value[i], times) for value, times in counts.items() if len(value) == axes]
        values = np.repeat(*map(np.array, zip(*sorted(alike), strict=True)))
        groups.append(Group(name, values[:: math.ceil(len(values) / DRAWN)].tolist(), "normal"))
    return stacked_histogram(groups, unit)


def _figure(exhibit: Exhibit) -> dict[str, Any]:
    """Return an exhibit as the template needs it."""
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
    """Format a setting for reading."""
    if value is None:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_words, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _environment() -> Environment:
    environment = html.environment(rate=rate, words=_words, figure=figure)
    environment.globals |= {"sections": SECTIONS, "splits": SPLITS} | likeness.GLOBALS
    return environment
