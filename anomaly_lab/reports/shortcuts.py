"""The shortcut audit on pages: what stands above, the charts, the words for its rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from anomaly_lab.reports.charts import Panel, figure, rate
from anomaly_lab.reports.html import Banner
from anomaly_lab.reports.svg import Axis, Deviation, Interval, deviation_plot, interval_plot, shortened

KINDS = {
    "greys": ("Greys and colours", "series-0"),
    "places": ("Places", "series-0"),
    "textures": ("Detail, noise, compression", "series-0"),
    "files": ("Files and their headers", "series-1"),
    "names": ("Names and dates (not seen)", "series-2"),
}
DRAWN = 14  # rules of a kind in a chart; the table has all
NAMED = 2  # rules in a sentence, or one of each kind if these are more
UNITS = {"image": "images", "patch": "patches", "case": "cases"}

Found = Mapping[str, Any]


def banners(found: Found | None) -> list[Banner]:
    """Say by what a set can be told apart, as a notice; empty if by nothing.

    Args:
        found: result of the shortcut audit; None if there was none.

    Examples:
        >>> rule = {"name": "files.width", "title": "width", "kind": "files", "auroc": {"value": 0.2}}
        >>> found = {"rules": [rule | {"told": 0.8, "alarm": True}], "unit": "image"}
        >>> banners(found)[0].text[:74]
        'This set can be told apart by the width of the file (AUROC .80, higher in '
    """
    if not found:
        return []
    alarms = [rule for rule in found.get("rules", ()) if rule.get("alarm") and rule["kind"] != "names"]
    if not alarms:
        return []
    named = list({rule["kind"]: rule for rule in reversed(alarms)}.values())  # the strongest of each kind
    named = sorted(named, key=lambda rule: -rule["told"]) if len(named) >= NAMED else alarms[:NAMED]
    units = UNITS[found.get("unit", "image")]
    words = [_words(rule, units) for rule in named]
    more = len(alarms) - len(named)
    which = "The test split" if "score" in found else "This set"
    text = f"{which} can be told apart by {_list(words, more)}. "
    if any(rule["kind"] == "files" for rule in named):
        text += (
            "What a file is like is no anomaly: a detector that scores no higher may be a ruler, and traces of sizes "
            "and formats outlast a resizing. Bring all files to one size and compression by the same path, and compare."
        )
    else:
        text += (
            "That may be the anomaly itself or how the classes were made; a detector that scores no higher has learnt "
            "no more than this one number."
        )
    if found.get("score") is not None:
        on = "" if _has_all(found) else f" on these {sum(found['cases'].values())} of them"
        text += f" This detector has {rate(found['score'], 2)}{on}."
    return [Banner("warning", "A shortcut", text)]


def panels(found: Found) -> list[Panel]:
    """Draw the strongest rules of each kind.

    Args:
        found: result of the shortcut audit.

    Examples:
        >>> rule = {"name": "files.width", "title": "width", "kind": "files", "auroc": {"value": 0.8}, "told": 0.8}
        >>> [panel.title for panel in panels({"rules": [rule | {"chance": 0.1, "alarm": True}]})]
        ['Files and their headers']
    """
    drawn = []
    for kind, (title, style) in KINDS.items():
        rules = [rule for rule in found.get("rules", ()) if rule["kind"] == kind]
        if not rules:
            continue
        rows = [
            Deviation(
                rule["title"].removeprefix("header: "),
                rule["auroc"]["value"],
                rule["auroc"].get("low"),
                rule["auroc"].get("high"),
                rule["chance"],
                rate(rule["auroc"]["value"], 2) if rule["alarm"] else "",
                style if rule["alarm"] else "quiet",
            )
            for rule in rules[:DRAWN]
        ]
        rest = len(rules) - len(rows)
        note = f"{rest} weaker rule{'s' * (rest > 1)} in the table below." if rest else ""
        drawn.append(Panel(title, deviation_plot(rows, Axis("AUROC", 0, 1), ("normal", "anomalous")), note))
    return drawn


def panels_of_detector(found: Found) -> list[Panel]:
    """Draw how a detector's score follows rules, and its AUROC among like cases; empty without a detector.

    Args:
        found: result of the shortcut audit.

    Examples:
        >>> stratum = {"title": "width", "auroc": {"value": 0.6}, "pairs": 0.2}
        >>> [panel.title for panel in panels_of_detector({"score": 0.8, "strata": [stratum]})]
        ['The detector among like cases']
    """
    drawn = []
    followed = [r for r in found.get("rules", ()) if r.get("follows") is not None and r["kind"] != "names"]
    followed.sort(key=lambda rule: -abs(rule["follows"]))
    if followed:
        independent = found.get("normal_patients", found["cases"]["normal"])  # cases of a patient follow each other
        chance = 1.96 / math.sqrt(max(1, independent - 1))  # of a rank correlation, each by itself
        rows = [
            Deviation(
                r["title"].removeprefix("header: "),
                r["follows"],
                None,
                None,
                min(1.0, chance),
                "",
                "series-0" if abs(r["follows"]) > chance else "quiet",
            )
            for r in followed[:DRAWN]
        ]
        note = (
            "Rank correlation of the score with each rule within the normal test cases, where there is nothing to "
            "find. Pale bar: where 95 % of unrelated rules lie, each by itself."
        )
        plot = deviation_plot(rows, Axis("Spearman’s correlation", -1, 1), ("score falls", "rises"))
        drawn.append(Panel("What the score follows in normals", plot, note))
    if found.get("strata"):
        name = "All test cases" if _has_all(found) else "All cases looked at"
        rows_of = [Interval(name, found["score"], None, None, rate(found["score"]), "series-0")]
        for stratum in found["strata"]:
            entry = stratum["auroc"]
            name = f"Like {shortened(stratum['title'])}, {100 * (stratum.get('pairs') or 0):.0f} %"
            values = entry.get("value"), entry.get("low"), entry.get("high")
            rows_of.append(Interval(name, *values, figure(entry), "series-0"))
        note = (
            "The detector’s AUROC over pairs of cases in the same fifth of a rule’s values. Where it falls to "
            "guessing, the detector knew no more than the rule. Percent: share of all pairs."
        )
        drawn.append(Panel("The detector among like cases", interval_plot(rows_of, ("guessing .500", 0.5)), note))
    return drawn


def _has_all(found: Found) -> bool:
    """Whether all cases were looked at, and not so many drawn from each class."""
    return found.get("of") in (None, found.get("cases"))


def _words(rule: Found, units: str) -> str:
    """Describe a rule with its figure: "the width of the file (AUROC .80, higher in normal images)"."""
    title, told = str(rule["title"]), rate(rule["told"], 2)
    name = f"{title.removeprefix('header: ')} in the header" if title.startswith("header: ") else title
    if rule["kind"] == "files" and not title.startswith("header: "):
        name = f"{title} of the file"
    value = rule["auroc"]["value"]
    if value >= 0.5 and rule.get("text"):
        return f"the {name} (AUROC {told})"
    return f"the {name} (AUROC {told}, higher in {'anomalous' if value > 0.5 else 'normal'} {units})"


def _list(words: list[str], more: int) -> str:
    """Join words as a sentence does."""
    if more:
        words = [*words, f"{more} more rule{'s' * (more > 1)}"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
