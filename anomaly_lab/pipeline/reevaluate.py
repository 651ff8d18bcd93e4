"""Evaluate runs by new rules: from their recorded scores alone, and all runs below a folder one after another."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.evaluation import classes
from anomaly_lab.evaluation.classes import ClassTable, Supervision, evaluate_classes
from anomaly_lab.evaluation.decisions import decisions_in_use
from anomaly_lab.evaluation.protocol import evaluate_scores
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment import run_folder
from anomaly_lab.experiment.config import Evaluation
from anomaly_lab.experiment.record import read_metrics, read_provenance
from anomaly_lab.experiment.tables import to_csv
from anomaly_lab.pipeline.console import say, warn
from anomaly_lab.reports.charts import rate
from anomaly_lab.reports.gallery import read_gallery
from anomaly_lab.types import Stopped, UserError

Source = Literal["anew", "recorded"]
OF_PICTURES = (
    "pixels",
    "shortcuts",
    "baseline_notes",
    "planted",
)  # parts of metrics.json that scores alone cannot give
OF_SCORING = ("case_score", "top_k", "reference", "planted", "feature_baselines")  # settings that need more than scores
TABLE = "evaluated.csv"  # in the folder of the runs
OUTCOMES = {(1, True): "tp", (0, True): "fp", (0, False): "tn", (1, False): "fn"}  # by label and call
FIGURES = {"auroc": "AUROC", "threshold": "threshold", "balanced_accuracy": "balanced accuracy"}


def source_of(words: Sequence[str]) -> tuple[Source, list[str]]:
    """Split words `key=value` into where the scores come from, and the others.

    Raises:
        UserError: there is no such source, or recorded scores have no use for a word.

    Examples:
        >>> source_of(["scores=recorded", "evaluation.purpose=screening"])
        ('recorded', ['evaluation.purpose=screening'])
    """
    source: Source = "anew"
    for word in words:
        key, _, value = word.partition("=")
        if key == "scores":
            known = {name: name for name in get_args(Source)}
            if (value := value.strip("\"'")) not in known:
                raise UserError(f"{word}: takes anew (the checkpoint scores the data again) or recorded (scores.csv)")
            source = known[value]
    for word in words:
        if source == "recorded" and word.startswith(("trainer.", "data.")):
            raise UserError(f"{word}: scores=recorded scores nothing; leave it out, or scores=recorded")
    return source, [word for word in words if word.partition("=")[0] != "scores"]


def refuse_unrecorded(run: Path, before: Evaluation, evaluation: Evaluation) -> None:
    """Refuse what recorded scores cannot say; called before anything is written.

    Args:
        run: a run folder.
        before: the settings that it was evaluated with.
        evaluation: the settings that it is to be evaluated with.

    Raises:
        UserError: the settings ask for scores of another unit or for what needs pictures or the model, or there are no
            scores, or some that an interrupted evaluation has left.

    Examples:
        >>> refuse_unrecorded(Path("runs/a"), Evaluation(), Evaluation(planted=True))
        Traceback (most recent call last):
        anomaly_lab.types.UserError: evaluation.planted=true: the recorded scores are those of planted=false, and ...
    """
    for key in OF_SCORING:
        was, now = (str(getattr(each, key)) for each in (before, evaluation))
        if was != now:
            was, now = (text.lower() if text in ("True", "False") else text for text in (was, now))
            raise UserError(
                f"evaluation.{key}={now}: the recorded scores are those of {key}={was}, and anything else needs the "
                "model and its pictures; leave out scores=recorded"
            )
    if not read_metrics(run):
        raise UserError(f"{run} was never evaluated, so it has no recorded scores; run: make evaluate RUN={run}")
    if read_provenance(run).get("evaluating") == "anew":
        raise UserError(
            f"{run}: its evaluation was interrupted, so the recorded scores may be of other settings; leave out "
            "scores=recorded"
        )


def evaluate_recorded(run: Path, before: Evaluation, evaluation: Evaluation) -> None:
    """Write metrics.json and the decisions in scores.csv again, from the recorded scores; no data, no weights needed.

    What needs pictures stays as it was: pixel metrics, the pictures of the gallery (each is listed under the outcome
    that it has now), and which baselines there are.

    Args:
        run: a run folder that was evaluated.
        before: the settings that it was evaluated with.
        evaluation: the settings that it is to be evaluated with.

    Raises:
        UserError: as `refuse_unrecorded`.

    Examples:
        >>> evaluate_recorded(run, Evaluation(), Evaluation(purpose="screening"))  # doctest: +SKIP
    """
    refuse_unrecorded(run, before, evaluation)
    recorded = read_metrics(run)
    scores = Scores.read(run / "scores.csv")
    told = recorded.get("classes")
    of_probabilities = recorded["threshold"].get("probabilities", bool(told))  # older versions did not tell
    scores = replace(scores, probabilities=of_probabilities)
    metrics = evaluate_scores(scores, evaluation.purpose, evaluation.replicates, rule=evaluation.threshold)
    unit = "patch" if evaluation.case_score == "none" else "case"
    metrics["unit"] = {"scored": unit, "rule": evaluation.case_score, "top_k": evaluation.top_k}
    metrics = {key: figures for key, figures in recorded.items() if key in OF_PICTURES} | metrics
    metrics["decisions"] = decisions_in_use(metrics, evaluation.prevalence, evaluation.scans_per_day)
    threshold = metrics["threshold"]["value"]
    if told:
        table = ClassTable.read(run / classes.FILE)
        supervision = Supervision(told["task"], told["training"])
        metrics["classes"] = evaluate_classes(table, scores, supervision, threshold, evaluation.replicates)
    gallery = read_gallery(run)
    run_folder.update_provenance(run, evaluating="recorded")  # until its configuration says the same
    run_folder.write_atomic(run / "scores.csv", scores.to_csv(threshold))
    run_folder.write_json(run / "metrics.json", metrics)
    if gallery and threshold is not None:
        gallery["kind"] = _outcomes(gallery["id"].tolist(), gallery["kind"].tolist(), scores, threshold)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {**gallery}
        np.savez_compressed(buffer, **arrays)
        run_folder.write_atomic(run / "samples" / "gallery.npz", buffer.getvalue())


def _outcomes(ids: Sequence[str], kinds: Sequence[str], scores: Scores, threshold: float) -> np.ndarray:
    """Return the kinds of a gallery's cases with each outcome as it is now; other kinds stay."""
    called = zip(scores.label.tolist(), (scores.score > threshold).tolist(), strict=True)
    now = {id: OUTCOMES[outcome] for id, outcome in zip(scores.id, called, strict=True)}
    return np.array(
        [now.get(id, kind) if kind in OUTCOMES.values() else kind for id, kind in zip(ids, kinds, strict=True)]
    )


def figures_of(run: Path) -> dict[str, float | None]:
    """Return AUROC, threshold and balanced accuracy of a run; empty if it was not evaluated.

    Examples:
        >>> figures_of(Path("no such run"))
        {}
    """
    metrics = read_metrics(run)
    if not metrics:
        return {}
    detector = metrics.get("detector") or {}
    found = {name: (detector.get(name) or {}).get("value") for name in ("auroc", "balanced_accuracy")}
    return {name: (found | {"threshold": (metrics.get("threshold") or {}).get("value")})[name] for name in FIGURES}


def runs_below(folder: Path) -> list[Path]:
    """Return the run folders below a folder, in the order of their paths; none if it is a run folder itself.

    Links are not followed, and hidden folders are left out: runs that are being made lie in one.

    Examples:
        >>> runs_below(Path("no such folder"))
        []
    """
    return [] if (folder / "config.yaml").is_file() else sorted(_runs(folder))


def _runs(folder: Path) -> Iterator[Path]:
    for place, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        if {"config.yaml", "provenance.json"} <= set(files):
            names.clear()
            yield Path(place)


class Reevaluated(NamedTuple):
    """What became of a run: its figures before and now, or why there are none.

    Attributes:
        run: its folder.
        before, now: see `figures_of`; empty where there are none.
        left_out: why it was not evaluated, if that is no failure.
        error: why it could not be evaluated.
    """

    run: Path
    before: Mapping[str, float | None]
    now: Mapping[str, float | None] = {}
    left_out: str = ""
    error: str = ""


def evaluate_each(
    folder: Path, runs: Sequence[Path], evaluate: Callable[[Path], object], quiet: bool
) -> list[Reevaluated]:
    """Evaluate runs one after another, go on after one that fails, and write evaluated.csv beside them.

    Args:
        folder: the folder that the runs lie in.
        runs: their folders.
        evaluate: evaluates one.
        quiet: whether `evaluate` shows no progress of its own; then there is one bar for all runs.

    Returns:
        What became of each run, in the given order.

    Examples:
        >>> evaluate_each(Path("runs"), runs_below(Path("runs")), print, quiet=True)  # doctest: +SKIP
    """
    judged = []
    with Meter("evaluating", "run", silent=not quiet) as meter:
        for number, run in enumerate(runs, 1):
            judged.append(outcome := _judge(run, evaluate))
            _tell(outcome, folder, f"[{number}/{len(runs)}]")
            run_folder.write_atomic(folder / TABLE, _table(judged, folder))
            meter.show(number, len(runs))
    failed, left_out = (sum(bool(getattr(each, why)) for each in judged) for why in ("error", "left_out"))
    done = len(judged) - failed - left_out
    say(f"{done} of {len(runs)} runs evaluated, {left_out} left out, {failed} failed; before and now: {folder / TABLE}")
    return judged


def _judge(run: Path, evaluate: Callable[[Path], object]) -> Reevaluated:
    before: dict[str, float | None] = {}
    try:
        if not (run / "metrics.json").is_file() and not read_provenance(run).get("finished"):
            return Reevaluated(run, before, left_out="not evaluated yet")
        before = figures_of(run)
        evaluate(run)
        return Reevaluated(run, before, figures_of(run))
    except (Stopped, KeyboardInterrupt):
        raise
    except UserError as error:
        return Reevaluated(run, before, error=" ".join(str(error).split()))
    except Exception as error:  # of one run; the others have nothing to do with it
        return Reevaluated(run, before, error=f"{type(error).__name__}: {' '.join(str(error).split())}")


def _tell(judged: Reevaluated, folder: Path, number: str) -> None:
    name = f"{number} {judged.run.relative_to(folder)}"
    if judged.error:
        warn(f"{name}: failed: {judged.error}")
    elif judged.left_out:
        say(f"{name}: left out: {judged.left_out}")
    else:
        steps = (
            f"{title} {_shown(key, judged.before.get(key))} → {_shown(key, judged.now.get(key))}"
            for key, title in FIGURES.items()
        )
        say(f"{name}: {', '.join(steps)}")


def _shown(key: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if key == "threshold" else rate(value)


def _table(judged: Sequence[Reevaluated], folder: Path) -> str:
    def cells(figures: Mapping[str, float | None]) -> list[str]:
        return ["" if (value := figures.get(key)) is None else repr(value) for key in FIGURES]

    header = ["run", *(f"{key}_before" for key in FIGURES), *FIGURES, "left_out", "error"]
    rows = [
        [str(each.run.relative_to(folder)), *cells(each.before), *cells(each.now), each.left_out, each.error]
        for each in judged
    ]
    return to_csv([header, *rows])
