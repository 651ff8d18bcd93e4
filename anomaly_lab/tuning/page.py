"""The page of a tuning: how far it came, which settings matter, what was tried, and what the best one is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.lesions.planting import HELD_BACK, TUNING
from anomaly_lab.reports import html
from anomaly_lab.reports.charts import Panel, rate
from anomaly_lab.reports.svg import (
    Axis,
    Interval,
    Series,
    Upright,
    interval_plot,
    line_chart,
    padded,
    parallel_plot,
    shortened,
)
from anomaly_lab.tuning.space import Parameter

FILE = "tuning.html"
FEW_NORMALS = 30  # below, the page warns: the standard error of an AUROC of .6 is about .05 with 30
FEWEST = 5  # finished trials of which importances say something
MAX_LINES = 200  # of the parallel axes: the best ones


class Told(NamedTuple):
    """What the page tells of.

    Attributes:
        experiment: name.
        words: overrides of every trial.
        space: the settings that may change.
        study: the trials.
        best: number of the best trial, if one is finished.
        own: number of the trial with the experiment's own values, if it is finished.
        held_back: by trial number as text, AUROC (and that of each kind) of the lesions that chose nothing.
        source: "twin" or "real"; empty before a trial is finished.
        normals: number of validation normals; None before a trial is finished.
        budget: of the trials.
        command: that trains the best values.
    """

    experiment: str
    words: Sequence[str]
    space: Sequence[Parameter]
    study: optuna.Study
    best: int | None
    own: int | None
    held_back: Mapping[str, Any]
    source: str = ""
    normals: int | None = None
    budget: str = ""
    command: str = ""


def write(folder: Path, told: Told) -> Path:
    """Write the page into the tuning's folder.

    Returns:
        The page.

    Examples:
        >>> write(Path("runs/tuning/ganomaly_headct"), told)  # doctest: +SKIP
        PosixPath('runs/tuning/ganomaly_headct/tuning.html')
    """
    write_atomic(folder / FILE, render(told))
    return folder / FILE


def render(told: Told) -> str:
    """Return the page as HTML text.

    Examples:
        >>> study = optuna.create_study(direction="maximize")
        >>> "<h1>ganomaly_headct</h1>" in render(Told("ganomaly_headct", (), (), study, None, None, {}))
        True
    """
    trials = told.study.trials
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    panels = [_history(trials)] if finished else []
    if len(finished) >= FEWEST and (shown := _importances(told.study)):
        panels.append(shown)
    if len(finished) >= 2:
        panels.append(_parallel(told.space, finished, told.best))
    by_number = {trial.number: trial for trial in trials}
    return (
        html.environment("tuning", rate=rate, short=_short)
        .get_template("tuning.html.j2")
        .render(
            told=told,
            banners=_banners(told, by_number),
            panels=panels,
            trials=sorted(trials, key=lambda trial: (-_value(trial), trial.number)),
            best=by_number.get(told.best) if told.best is not None else None,
            own=by_number.get(told.own) if told.own is not None else None,
            chosen_by=[kind.name for kind in TUNING],
            held_back=[kind.name for kind in HELD_BACK],
            states={state: state.name.lower() for state in TrialState},
        )
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(trial: FrozenTrial) -> float:
    return trial.value if trial.state == TrialState.COMPLETE and trial.value is not None else -math.inf


def _banners(told: Told, trials: Mapping[int, FrozenTrial]) -> list[html.Banner]:
    """Return the verdict, and what the figures are not."""
    banners = [_verdict(told, trials)]
    if told.source == "twin":
        banners.append(html.Banner("warning", "Synthetic twin", "Generated pictures, not patients."))
    if told.budget not in ("", "paper"):
        banners.append(html.Banner("note", "Reduced budget", f"Trials train with budget={told.budget}."))
    if told.normals is not None and told.normals < FEW_NORMALS:
        text = f"Lesions are planted on {told.normals} validation normals, on which small differences are chance."
        banners.append(html.Banner("warning", "Few normals", text))
    return banners


def _verdict(told: Told, trials: Mapping[int, FrozenTrial]) -> html.Banner:
    if told.best is None:
        return html.Banner("open", "No trial is finished yet", "The page is written again after each.")
    best, own = trials[told.best], trials.get(told.own) if told.own is not None else None
    text = f"Trial {best.number} tells normals with planted lesions from the same without: AUROC {rate(best.value)}"
    if own is None:
        return html.Banner("open", "Best so far", f"{text}.")
    text += f", the experiment as it is {rate(own.value)}"
    checks = [told.held_back.get(str(each.number)) for each in (best, own)]
    if best.number == own.number:
        return html.Banner("open", "Nothing better was found", f"{text}: it is the best.")
    if not all(checks):
        return html.Banner("open", "Best so far", f"{text}.")
    gains = [check["auroc"] for check in checks if check]
    text += f". On kinds of lesions that chose nothing: {rate(gains[0])} against {rate(gains[1])}."
    holds = gains[0] > gains[1]
    return html.Banner(
        "good" if holds else "bad", "The gain holds" if holds else "The gain does not hold on other lesions", text
    )


def _history(trials: Sequence[FrozenTrial]) -> Panel:
    finished = sorted((trial for trial in trials if _value(trial) > -math.inf), key=lambda trial: trial.number)
    numbers, values = [trial.number for trial in finished], [_value(trial) for trial in finished]
    best = [max(values[: i + 1]) for i in range(len(values))]
    # a line through single trials says nothing; each is a dot
    dots = [
        Series("" if i else "a trial", [n], [v], "series-1")
        for i, (n, v) in enumerate(zip(numbers, values, strict=True))
    ]
    line = Series("best so far", [numbers[0], *numbers], [best[0], *best], "series-0")
    chart = line_chart([*dots, line], Axis("trial", *padded(numbers)), Axis("AUROC, planted lesions", *padded(values)))
    return Panel("History", chart, "Trials that were given up, or failed, have no value.")


def _importances(study: optuna.Study) -> Panel | None:
    """Plot how much of the difference between good and other trials each setting explains."""
    try:
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (RuntimeError, ValueError):  # all trials are equal, or too few
        return None
    if not found or not all(map(math.isfinite, found.values())):
        return None
    total = sum(found.values()) or 1.0
    rows = [Interval(shortened(key), v / total, None, None, rate(v / total, 2), "series-0") for key, v in found.items()]
    note = "Share of what tells the best tenth of the trials from the rest (PED-ANOVA, Watanabe et al. 2023)."
    return Panel("Which settings matter", interval_plot(rows), note)


def _parallel(space: Sequence[Parameter], finished: Sequence[FrozenTrial], best: int | None) -> Panel:
    ranked = sorted(finished, key=_value)[-MAX_LINES:]
    values = [_value(trial) for trial in ranked]
    low, high = min(values), max(values)
    axes = [Upright(shortened(each.key.removeprefix("detector."), 20), *_ends(each)) for each in space]
    lines = [
        (
            [
                *(_place(each, trial.params[each.key]) for each in space),
                (_value(trial) - low) / (high - low) if high > low else 1.0,
            ],
            "series-0" if trial.number == best else "faint",
        )
        for trial in ranked
        if all(each.key in trial.params for each in space)
    ]
    return Panel(
        "What was tried",
        parallel_plot([*axes, Upright("AUROC", rate(low), rate(high))], lines),
        "A line is a trial; the best one is bold.",
    )


def _ends(parameter: Parameter) -> tuple[str, str]:
    first, last = parameter.values[0], parameter.values[-1] if parameter.kind == "choice" else parameter.values[1]
    return tuple(f"{end:.3g}" if isinstance(end, float) else str(end) for end in (first, last))  # type: ignore[return-value]


def _place(parameter: Parameter, value: Any) -> float:
    """Return where a value lies between the ends, 0 to 1."""
    if parameter.kind == "choice":
        return parameter.values.index(value) / (len(parameter.values) - 1)
    low, high = parameter.values[:2]
    if parameter.kind.startswith("log"):
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))
