"""The page: a table of all runs that is sorted, filtered, grouped and compared by the script in it.

As a file it holds what a comparison needs, as far as it fits: settings of all runs, curves of the newest ones, tests
and pictures of the newest finished ones. Where it is served, it asks for them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from anomaly_lab.dashboard import compare
from anomaly_lab.dashboard.compare import Group, Test
from anomaly_lab.dashboard.index import Index
from anomaly_lab.dashboard.runs import Row
from anomaly_lab.experiment.run_folder import now, write_atomic
from anomaly_lab.reports import html
from anomaly_lab.reports.charts import BASELINE_NAMES

FILE = "dashboard.html"
CURVES = 12_000_000  # letters of curves in a file at most; those of the newest runs
NEWEST = 40  # finished runs whose tests and pictures are in a file
SCRIPT = files("anomaly_lab.dashboard").joinpath("dashboard.js").read_text(encoding="utf-8")


def write(index: Index, progress: Callable[[str, int, int], object] = lambda what, done, of: None) -> Path:
    """Write the page beside the runs, and return its path.

    Args:
        index: the index, up to date.
        progress: is told what is being computed, how much of it is done, and how much there is.

    Raises:
        UserError: the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Index(Path(folder))).name
        'dashboard.html'
    """
    newest = sorted(index.rows.values(), key=lambda row: (row.started or "", row.path), reverse=True)
    finished = [row.path for row in newest if row.state == "finished"][:NEWEST]
    found = compare.groups(index, lambda done, of: progress("repeats", done, of))
    kept = {
        "curves": _fitting(index.curves([row.path for row in newest]), [row.path for row in newest]),
        "tests": [list(test) for test in compare.tests(index, finished)],
        "galleries": compare.galleries(index, finished),
        "newest": finished,
    }
    text = render(index, found, kept)
    write_atomic(index.place / FILE, text)
    return index.place / FILE


def render(index: Index, groups: Sequence[Group], kept: Mapping[str, Any] | None = None, version: int = 0) -> str:
    """Render the page as HTML text.

    Args:
        index: the index, up to date.
        groups: of the runs.
        kept: what a comparison needs; None where the page is served, and asks for it.
        version: of the rows, for a page that asks what has changed.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     "<h1>My runs</h1>" in render(Index(Path(folder)), [])
        True
    """
    rows = list(index.rows.values())
    told = {
        "served": kept is None,
        "version": version,
        "columns": Row._fields,
        "rows": [plain_row(row) for row in rows],
        **plain_groups(groups),
        "tested": Test._fields,
        "baselines": BASELINE_NAMES,
        "most": compare.MOST,
    }
    return (
        html.environment("dashboard")
        .get_template("dashboard.html.j2")
        .render(
            place=index.place.resolve().name,
            written=now().replace("T", " ")[:16],
            served=kept is None,
            script=Markup(SCRIPT),  # of this package
            script_hash=_sha256(SCRIPT),
            data=_embedded(told),
            settings=_compressed(columns(index.configs(), [row.path for row in rows])) if kept else "",
            kept=_compressed(kept) if kept else "",
        )
    )


def plain_row(row: Row) -> list[Any]:
    """Return a row as the page's script takes it: in order, with numbers of four digits.

    Examples:
        >>> plain_row(Row("a/b", "finished", auroc=0.123456))[9]
        0.1235
    """
    return [float(f"{value:.4g}") if isinstance(value, float) and math.isfinite(value) else value for value in row]


def plain_groups(groups: Sequence[Group]) -> dict[str, Any]:
    """Return the groups as the page's script takes them.

    Examples:
        >>> plain_groups([])["groups"]
        []
    """
    return {"grouped": Group._fields, "groups": [list(group) for group in groups]}


def columns(configs: Mapping[str, Mapping[str, str]], paths: Sequence[str]) -> dict[str, Any]:
    """Return settings by column: for each key its different values, and which of them each run has, -1 for none.

    Thousands of runs have most settings in common, so this is small.

    Args:
        configs: settings by path.
        paths: of the runs, in the order of the rows.

    Examples:
        >>> columns({"a": {"seed": "0"}, "b": {"seed": "1", "lr": ".1"}}, ["b", "a"])
        {'lr': [['.1'], [0, -1]], 'seed': [['1', '0'], [0, 1]]}
    """
    found: dict[str, tuple[dict[str, int], list[int]]] = {}
    for place, path in enumerate(paths):
        for key, value in configs.get(path, {}).items():
            values, of = found.setdefault(key, ({}, []))
            of += [-1] * (place - len(of))
            of.append(values.setdefault(value, len(values)))
    for _, of in found.values():
        of += [-1] * (len(paths) - len(of))
    return {key: [list(values), of if any(of) else []] for key, (values, of) in sorted(found.items())}


def _fitting(curves: Mapping[str, Any], newest: Sequence[str]) -> dict[str, Any]:
    """Return the curves of the newest runs, as many as fit into a file."""
    left, found = CURVES, {}
    for path in newest:
        left -= len(json.dumps(curves.get(path)))
        if left < 0:
            break
        found[path] = curves.get(path) or {}
    return found


def _embedded(content: object) -> Markup:
    """Return JSON that cannot end the element that it stands in, whatever its texts are."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _compressed(content: object) -> str:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
