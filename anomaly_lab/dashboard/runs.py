"""Find the run folders of a place, and read each to a row of the dashboard; one that cannot be read says why."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yaml import YAMLError

from anomaly_lab.experiment import fingerprint
from anomaly_lab.experiment.locks import substitute
from anomaly_lab.experiment.record import changes_of, read_metrics, read_provenance
from anomaly_lab.experiment.regular import regular
from anomaly_lab.experiment.schema import moved
from anomaly_lab.reports import html
from anomaly_lab.studies.plan import plain
from anomaly_lab.types import UserError

RECORD = ("config.yaml", "provenance.json", "metrics.json", "metrics.jsonl", "scores.csv")  # is read
FILES = (*RECORD, "report.html", "samples/gallery.npz")  # a row changes with any of them
LARGEST = 2**26  # bytes of a file of the record
SETTINGS = 2000  # of a configuration at most
LONGEST = 300  # letters of a value that is shown
POINTS, SPARK, CURVES = 64, 24, 8  # of a curve, of the small one of a running run; curves of a run
FEW = 5  # points that the small curve should have
SPARSE = 2**22  # bytes of metrics.jsonl from which on lines are skipped
LOCK = Path(".lock")  # of a run, see `run_folder.locked`
CALLBACK = re.compile(r"callbacks\.([^.]+)")
Curve = dict[str, tuple[list[float], list[float]]]  # by the name of what was tracked, iterations and values


class Row(NamedTuple):
    """A run in the table; None where it does not say.

    Attributes:
        path: of the run folder below the place, with slashes.
        state: "finished", "running", "stopped", or "unreadable".
        why: of a run that cannot be read.
        experiment, detector, data, source, budget, seed: what was run; source is "real" or "synthetic twin".
        auroc, low, high: with its interval.
        gain, gain_low, gain_high, best: AUROC minus that of the best baseline, and which that is.
        hours, parameters: cost of the training, millions of weights not rounded.
        started: date and time in UTC.
        group: runs that differ in seed or fold alone, and not in what `recorded` says, have the same.
        done, of: iterations.
        live: a few points of a curve, of a run that is not finished.
        caveats: number of warnings that the run recorded.
        report: whether it has a report.
    """

    path: str
    state: str
    why: str | None = None
    experiment: str | None = None
    detector: str | None = None
    data: str | None = None
    source: str | None = None
    budget: str | None = None
    seed: int | None = None
    auroc: float | None = None
    low: float | None = None
    high: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    best: str | None = None
    hours: float | None = None
    parameters: int | None = None
    started: str | None = None
    group: str | None = None
    done: int | None = None
    of: int | None = None
    live: list[float] | None = None
    caveats: int | None = None
    report: bool = False


class Read(NamedTuple):
    """What is kept of a run: its row, by dotted key the settings and what is `recorded`, and curves."""

    row: Row
    config: dict[str, str]
    curve: Curve


class Found(NamedTuple):
    """A run folder that was found: what its files were like, and whether a process works on it."""

    stamp: str
    held: bool


class _Record(NamedTuple):
    """What stands in a run folder: provenance.json, metrics.json, config.yaml, its settings, lines of metrics.jsonl."""

    facts: Mapping[str, Any]
    metrics: Mapping[str, Any]
    content: Mapping[str, Any]
    config: Mapping[str, str]
    log: Sequence[dict[str, Any]]


def find(place: Path) -> dict[str, Found]:
    """Return the run folders below a place by their paths, with slashes; links and hidden folders are left out.

    Raises:
        UserError: there is no such folder, or it is a run folder itself.

    Examples:
        >>> find(Path("no/such/folder"))
        Traceback (most recent call last):
            ...
        anomaly_lab.types.UserError: no/such/folder is no folder; name the folder of your runs: runs=…
    """
    if not place.is_dir():
        raise UserError(f"{place} is no folder; name the folder of your runs: runs=…")
    if (place / "config.yaml").is_file():
        raise UserError(f"{place} is a run folder; name the folder that your runs lie in: runs=…")
    held = _held()
    return {folder.removeprefix(str(place)).lstrip("/"): _found(folder, below, held) for folder, below in _walk(place)}


def _walk(place: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield the run folders, each with the names in it."""
    for folder, names, files in os.walk(place):
        if {"config.yaml", "provenance.json"} & set(files):
            yield folder, {*names, *files}
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))


def _found(folder: str, below: set[str], held: set[int] | None) -> Found:
    """Look at a run folder; there may be ten thousand, so that paths are texts here."""
    marks = []
    for name in FILES:
        if name.partition("/")[0] in below:
            with contextlib.suppress(OSError):
                known = os.stat(f"{folder}/{name}")  # noqa: PTH116
                marks.append(f"{name}:{known.st_mtime_ns}:{known.st_size}")
    return Found(" ".join(marks), substitute(LOCK).name in below or (LOCK.name in below and _is_held(folder, held)))


def _is_held(folder: str, held: set[int] | None) -> bool:
    lock = Path(folder) / LOCK
    try:
        return _is_taken(lock) if held is None else os.lstat(lock).st_ino in held
    except OSError:
        return False


def _held() -> set[int] | None:
    """Return the inodes of locked files, None where the kernel (other than Linux) does not list them.

    Trying a lock, as `_is_taken` does, could stop who asks for it just then.
    """
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    return {int(place.rpartition(":")[2]) for line in lines for place in line.split() if place.count(":") == 2}


def _is_taken(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(descriptor)
    return False


def read(place: Path, path: str, held: bool = False) -> Read:
    """Read a run folder; whatever is wrong with it becomes a row that says so.

    Args:
        place: the folder of the runs.
        path: of the run folder below it.
        held: whether a process works on it.

    Examples:
        >>> read(Path("no"), "such/run").row.why
        'provenance.json is missing'
    """
    run = place / path
    try:
        path.encode()
        for name in (*FILES, "samples"):
            _refuse_strange(run, name)
        facts, metrics = read_provenance(run), read_metrics(run)
        if not facts:
            raise UserError("provenance.json is missing")
        content = plain(regular(run / "config.yaml").read_text(encoding="utf-8"))
        config, log = settings(content) | recorded(facts, content), _log(run / "metrics.jsonl")
        return Read(_row(run, path, _Record(facts, metrics, content, config, log), held), config, curves(log))
    except UnicodeEncodeError:
        known = path.encode(errors="replace").decode()
        return Read(Row(path, "unreadable", f"its name is not UTF-8: {known}"), {}, {})
    except FileNotFoundError as error:
        why = f"{Path(str(error.filename)).name} is missing"
    except (UserError, OSError, YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        why = str(error) or type(error).__name__
    words = html.without_folders(" ".join(why.replace(f"{run}/", "").split()))
    return Read(Row(path, "unreadable", words[:LONGEST], report=(run / "report.html").is_file()), {}, {})


def _refuse_strange(run: Path, name: str) -> None:
    """Refuse a file that is too large, and a link out of the run folder, which would show what others keep there."""
    path = run / name
    try:
        known = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(known.st_mode):
        if not path.resolve().is_relative_to(run.resolve()):
            raise UserError(f"{name} is a link out of the run folder")
        known = path.stat()
    if name in RECORD and name != "metrics.jsonl" and known.st_size > LARGEST:
        raise UserError(f"{name} has {known.st_size} bytes; more than {LARGEST} are not read")


def settings(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a config.yaml by dotted key, as short texts without folders.

    Args:
        content: of the file as plain Python.

    Raises:
        UserError: there are more than SETTINGS.

    Examples:
        >>> settings({"detector": {"width": 8, "sizes": [1, 2]}, "data": {"root": "/home/ann/scans"}})
        {'detector.width': '8', 'detector.sizes': '[1, 2]', 'data.root': 'scans'}
    """
    found: dict[str, str] = {}
    if not isinstance(content, dict):
        raise UserError("config.yaml holds no mapping")
    nodes: list[tuple[str, Any]] = [("", content)]
    while nodes:
        key, value = nodes.pop()
        if isinstance(value, dict) and value:
            nodes += [(f"{key}.{name}" if key else str(name), below) for name, below in reversed(value.items())]
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            found[key[:LONGEST]] = str(html.without_folders(shown) if "/" in shown else shown)[:LONGEST]
        if len(found) + len(nodes) > SETTINGS:
            raise UserError(f"config.yaml has more than {SETTINGS} settings")
    return found


def _log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl that can be read; of a long one some, evenly spaced, and the last."""
    try:
        size = regular(path).stat().st_size
    except OSError:
        return []
    with path.open("rb") as file:
        if size <= SPARSE:
            lines = file.read(SPARSE).splitlines()
        else:
            lines = []
            for part in range(1000):
                file.seek(max(0, size - 4096) * part // 999)
                block = file.read(4096).split(b"\n")
                lines += block[1:2] if part < 999 else block[-2:]
    log = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):  # the last one of a killed run may be incomplete
            content = json.loads(line)
            if isinstance(content, dict) and _finite(content.get("iteration")):
                log.append(content)
    return log


def _finite(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 2**63
    )


def curves(log: Sequence[dict[str, Any]]) -> Curve:
    """Return what was tracked by name: validation first, then terms of the losses, at most CURVES of POINTS points.

    Examples:
        >>> curves([{"iteration": 10, "phase": "gan", "train/grad_critic": 2.0, "train/critic": 0.123456}])
        {'train/critic': ([10], [0.1235]), 'train/grad_critic': ([10], [2.0])}
    """
    names = {name for line in log for name, value in line.items() if "/" in name and _finite(value)}
    ranked = sorted(names, key=lambda name: (not name.startswith("val/"), "/grad_" in name, name))[:CURVES]
    found: Curve = {}
    for name in ranked:
        points = [(line["iteration"], float(f"{line[name]:.4g}")) for line in log if _finite(line.get(name))]
        chosen = _some(points, POINTS)
        found[name[:LONGEST]] = ([x for x, _ in chosen], [y for _, y in chosen])
    return found


def _some(points: list[Any], most: int) -> list[Any]:
    """Return at most so many of the points, evenly spaced, with the first and the last."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _row(run: Path, path: str, record: _Record, held: bool) -> Row:
    facts, metrics, _, config, log = record
    detector, data = facts.get("detector") or {}, facts.get("data") or {}
    if interrupted := bool(facts.get("evaluating")):
        metrics = {}  # they may be of another evaluation than scores and settings
    auroc = _figure((metrics.get("detector") or {}).get("auroc"))
    versus = metrics.get("versus_baselines") or {}
    gain = _figure(versus.get("difference"))
    phases = detector.get("phases") or {}
    tracked = [values for _, values in curves(log).values()]
    drawn = next((values for values in tracked if len(values) >= FEW), tracked[0] if tracked else [])
    finished = bool(facts.get("finished"))
    source = {"twin": "synthetic twin"}.get(facts.get("source", ""), facts.get("source"))
    kind = str(detector.get("class") or config.get("detector._target_", "")).rpartition(".")[2]
    row = Row(
        path=path,
        state="finished" if finished else state(held),
        experiment=facts.get("experiment") or config.get("name"),
        detector=kind or None,
        data=data.get("name") or moved(config.get("data._target_", "")).rpartition(".")[2] or None,
        source=source,
        budget=facts.get("budget"),
        seed=facts.get("seed"),
        auroc=auroc[0], low=auroc[1], high=auroc[2],
        gain=gain[0], gain_low=gain[1], gain_high=gain[2],
        best=versus.get("best"),
        hours=sum(seconds.values()) / 3600 if (seconds := facts.get("seconds") or {}) else None,
        parameters=sum(parts.values()) if (parts := detector.get("parameters") or {}) else None,
        started=facts.get("started"),
        done=int(log[-1]["iteration"]) if log else None,
        of=sum(phases.values()) if phases else None,
        live=None if finished else _some(drawn, SPARK),
        caveats=len(detector.get("caveats") or []) + len(data.get("remarks") or []) + interrupted,
        report=(run / "report.html").is_file(),
    )  # fmt: skip
    told: dict[str, Any] = row._asdict()
    texts = {name: value[:LONGEST] for name, value in told.items() if isinstance(value, str) and name != "path"}
    return Row(**(told | texts | {"group": _group(row, record)}))


def state(held: bool) -> str:
    """Return the state of a run that is not finished.

    Args:
        held: whether a process works on it.

    Examples:
        >>> state(held=True), state(held=False)
        ('running', 'stopped')
    """
    return "running" if held else "stopped"


def _figure(figure: object) -> tuple[float | None, float | None, float | None]:
    if not isinstance(figure, dict):
        return None, None, None
    return figure.get("value"), figure.get("low"), figure.get("high")


def _group(row: Row, record: _Record) -> str:
    """Hash what runs have in common that repeat each other."""
    data = record.facts.get("data") or {}
    place = data.get("root") if row.source == "real" else None  # two folders of pictures are two data sets
    limited = any(key.startswith("data.limits.") for key in record.config)  # then a seed draws what is read
    content = None if limited else data.get("fingerprint")
    told = [row.experiment, row.data, row.source, place, content, row.budget]
    try:
        settled: object = fingerprint.of_repeats(record.content)
    except (AttributeError, KeyError, TypeError, ValueError):  # of another version, or damaged
        settled = sorted(repeated(record.config).items())
    text = json.dumps([*told, settled, sorted(recorded(record.facts, record.content).items())])
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]


def recorded(facts: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, str]:
    """Return what besides settings and data makes runs no repeats of each other, as short texts by key.

    Args:
        facts: content of provenance.json.
        content: of config.yaml as plain Python.

    Returns:
        Code; start without its seed; a checkpoint that a person asked for; changes of the data that one accepted.

    Examples:
        >>> recorded({"code": {"training": "1a2b"}, "checkpoint": {"rule": "asked for", "iteration": 70}}, {})
        {'code.training': '1a2b', 'checkpoint': 'asked for: 70'}
    """
    code, choice = facts.get("code") or {}, facts.get("checkpoint") or {}
    told = {
        f"code.{part}": str(hash) for part, hash in (code if isinstance(code, dict) else {"training": code}).items()
    }
    if source := content.get("start_from"):
        start = facts.get("started_from") or {}
        known = start.get("settings") or Path(str(source)).parent.name  # older records do not have the start's settings
        told["started_from"] = f"{known}, {start.get('phase')}"
    if choice.get("rule") == "asked for":
        told["checkpoint"] = f"asked for: {choice.get('iteration')}"
    if changes := facts.get("accepted_changes"):
        told["accepted_changes"] = "; ".join(map(changes_of, changes))
    return {key: str(html.without_folders(text))[:LONGEST] for key, text in told.items()}


def repeated(config: Mapping[str, str]) -> dict[str, str]:
    """Return what repeats have in common: settings but names, places, idle callbacks, seeds and folds; and `recorded`.

    Args:
        config: as in `Read.config`.

    Examples:
        >>> repeated({"seed": "1", "data.seed": "1", "runs": "runs", "detector.width": "8"})
        {'detector.width': '8'}
    """
    named = {match[1] for match in map(CALLBACK.match, config) if match}
    targets = {f"callbacks.{name}": config.get(f"callbacks.{name}._target_", "") for name in named}
    idle = [place for place, target in targets.items() if not target or not fingerprint.changes_scores(target)]
    return {
        key: value
        for key, value in config.items()
        if key.rpartition(".")[2] not in fingerprint.REPEATS
        and not any(key == place or key.startswith(f"{place}.") for place in (*fingerprint.NAMES_AND_PLACES, *idle))
    }
