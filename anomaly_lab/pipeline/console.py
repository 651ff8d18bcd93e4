"""Console output of a run, and suppression of Lightning's own messages."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.markup import escape

from anomaly_lab.callbacks.progress import StandardError
from anomaly_lab.experiment.record import remarks_of
from anomaly_lab.pipeline.cost import GPU_OPERATIONS
from anomaly_lab.reports import decisions
from anomaly_lab.reports.charts import BASELINE_NAMES, figure

MAX_LISTED_PAIRS = 10  # pairs of similar pictures to print; the report and the data sheet list all of them
_AT_THRESHOLD = {
    "balanced_accuracy": "balanced accuracy",
    "recall": "sensitivity",
    "specificity": "specificity",
}
_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")
_NOISE = (
    ".*treespec, LeafSpec.*",  # Lightning 2.6 on a recent torch
    ".*`srun` command is available.*",
    ".*does not have many workers.*",  # loading a batch is a single memory-map lookup
    ".*but have no `val_dataloader`.*",  # while the cost of the paper budget is measured
    ".*`srun` command is available.*",  # on the login node of a cluster
    ".*in eval mode at the start of training.*",  # training_step sets the modes for each phase
)

console = StandardError(highlight=False, soft_wrap=True)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's info messages and known harmless warnings within the context.

    Examples:
        >>> with quiet_lightning():
        ...     logging.getLogger("pytorch_lightning").getEffectiveLevel() == logging.WARNING
        True
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def say(text: str) -> None:
    """Print a line of plain text on stderr; square brackets are printed literally.

    Examples:
        >>> say("run: runs/ganomaly_headct")  # printed on stderr
    """
    console.print(escape(text))


def warn(text: str) -> None:
    """Print a line in bold yellow on stderr.

    Examples:
        >>> warn("SYNTHETIC TWIN")  # printed on stderr
    """
    console.print(f"[bold yellow]{escape(text)}[/]")


def announce(run: Path, facts: dict[str, Any], where_to_get: str) -> None:
    """Print the header of a training run: data source, caveats, budget, expected duration, splits and run folder.

    Args:
        run: the run folder.
        facts: its provenance, the content of provenance.json.
        where_to_get: the data set's instructions for obtaining the real files.

    Examples:
        >>> announce(run, facts, data.where_to_get)  # doctest: +SKIP
        budget laptop: gan 1000 iterations
        data: train 67 normal + 0 anomalous, val 8 normal + 0 anomalous, ...
    """
    announce_source(facts["source"], where_to_get)
    for caveat in facts["detector"]["caveats"]:
        warn(caveat)
    console.print(f"budget [bold]{facts['budget']}[/]: {_lengths(facts['detector']['phases'])} iterations")
    if "paper" in facts:
        cost = _hours(facts["paper"]["estimated_seconds"])
        lengths = _lengths(facts["paper"]["phases"])
        would = "this is" if facts["budget"] == "paper" else f"budget=paper would run {lengths} iterations,"
        on_gpu = facts["paper"].get("gpu_seconds")  # unknown to older runs, 0 of what computes no convolution
        gpu = f", {_hours(on_gpu)} on a GPU that sustains {GPU_OPERATIONS / 1e12:.0f} TFLOP/s" if on_gpu else ""
        say(f"{would} about {cost} on this machine{gpu}")
    if "started_from" in facts:
        say(f"warm start: phase {facts['started_from']['phase']} of {facts['started_from']['run']}")
    announce_data(facts["data"])
    say(f"run: {run}")


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def announce_source(source: str, where_to_get: str) -> None:
    """Print a warning if the pictures come from a synthetic twin, that is, are generated.

    Args:
        source: "real" or "twin".
        where_to_get: the data set's instructions for obtaining the real files.

    Examples:
        >>> announce_source("real", "download it")  # prints nothing
    """
    if source == "twin":
        console.print(
            "[bold yellow]SYNTHETIC TWIN[/]: generated pictures, not patients. "
            + escape(f"For the real ones {where_to_get}, then set data.root")
        )


def announce_data(facts: dict[str, Any]) -> None:
    """Print the sizes of the splits, or why there are none, the skipped files and the findings of the leakage audit.

    Args:
        facts: what `PatchDataModule.facts` returns.

    Examples:
        >>> audit = {"identical": [], "near_identical": [], "crossing": 0, "shared_patients": [], "checked": 2}
        >>> counts = {"test": {"normal": 1, "anomalous": 1}}
        >>> facts = {"counts": counts, "unsplit": "", "skipped": [], "left_out": {}, "remarks": [], "audit": audit}
        >>> announce_data(facts)  # printed on stderr
    """
    counts = ", ".join(
        f"{split} {n['normal']} normal + {n['anomalous']} anomalous" for split, n in facts["counts"].items()
    )
    say(f"data: {counts}; {len(facts['skipped'])} files skipped")
    if facts["unsplit"]:
        warn(f"the data could not be split: {facts['unsplit']}")
    if facts["left_out"]:
        others = ", ".join(f"{count} {suffix}" for suffix, count in facts["left_out"].items())
        say(f"data: files of other kinds, left out: {others}")
    if out := facts.get("in_no_split", {}).get("count"):
        some = ", ".join(facts["in_no_split"]["ids"][:5]) + (", …" if out > 5 else "")
        say(f"data: in no split, neither trained on nor judged: {out} ({some})")
    for remark in remarks_of(facts, named=True):
        warn(remark)
    audit = facts["audit"]
    pairs = [(kind, pair) for kind in ("identical", "near_identical") for pair in audit[kind]]
    for kind, pair in pairs[:MAX_LISTED_PAIRS]:
        ids, splits = " and ".join(pair["ids"]), " / ".join(pair["splits"])
        say(f"leakage audit: {ids} are {kind.replace('_', ' ')} ({splits})")
    if len(pairs) > MAX_LISTED_PAIRS:
        say(f"leakage audit: and {len(pairs) - MAX_LISTED_PAIRS} more such pairs")
    crossing = f"{audit['crossing']} pairs and {len(audit['shared_patients'])} patients across splits"
    say(f"leakage audit: {audit['checked']} pictures, {crossing}")


def announce_result(metrics: Mapping[str, Any]) -> None:
    """Print what an evaluation found: ranking, also of the best baseline, the threshold, the decisions, and their use.

    Args:
        metrics: content of metrics.json; empty for a run that was not evaluated, of which nothing is said.

    Examples:
        >>> announce_result({})  # prints nothing
    """
    detector, threshold = metrics.get("detector") or {}, metrics.get("threshold") or {}
    if not detector:
        return
    say(f"AUROC {figure(detector.get('auroc'))}; {_versus(metrics)}")
    if threshold.get("value") is None:
        return
    say(f"threshold {threshold['value']:.4g}: {decisions.of_threshold(threshold)}")
    say("at the threshold: " + ", ".join(f"{name} {figure(detector.get(key))}" for key, name in _AT_THRESHOLD.items()))
    if in_use := decisions.in_words(metrics.get("decisions") or {}):
        say(in_use)


def _versus(metrics: Mapping[str, Any]) -> str:
    """Say how the best baseline ranks, and what the detector has more than it."""
    versus = metrics.get("versus_baselines") or {}
    if (best := versus.get("best")) is None:
        return "no baseline was fitted"
    name, ranked = BASELINE_NAMES.get(best, best), ((metrics.get("baselines") or {}).get(best) or {}).get("auroc")
    return f"best baseline: {name} {figure(ranked)}, difference {figure(versus.get('difference'))}"


def _lengths(phases: dict[str, int]) -> str:
    return ", ".join(f"{name} {iterations}" for name, iterations in phases.items())
