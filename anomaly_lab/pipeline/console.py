"""All that is said on the console before, during and after a run, and what Lightning is kept from saying."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

MAX_LISTED_PAIRS = 10  # pairs of alike pictures that are named; the report and the data sheet list them all
_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")
_NOISE = (
    ".*treespec, LeafSpec.*",  # Lightning 2.6 on a recent torch
    ".*does not have many workers.*",  # a batch is one index into a memory map
    ".*but have no `val_dataloader`.*",  # measuring what the paper's budget would take
    ".*in eval mode at the start of training.*",  # training_step sets each phase's modes
)

console = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's devices, tips and known warnings are not shown inside: our own first lines say what runs where."""
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
    """A line of plain text; brackets in names are shown as they are."""
    console.print(escape(text))


def warn(text: str) -> None:
    """A line that must not be missed."""
    console.print(f"[bold yellow]{escape(text)}[/]")


def announce(run: Path, facts: dict[str, Any], where_to_get: str) -> None:
    """The first lines of a training: what runs on what, and for how long.

    Args:
        run: its folder.
        facts: its provenance.
        where_to_get: the data set's advice.
    """
    announce_source(facts["source"], where_to_get)
    for caveat in facts["detector"]["caveats"]:
        warn(caveat)
    console.print(f"budget [bold]{facts['budget']}[/]: {_lengths(facts['detector']['phases'])} iterations")
    if "paper" in facts:
        hours = facts["paper"]["estimated_seconds"] / 3600
        cost = f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.0f} days"
        say(f"budget=paper would be {_lengths(facts['paper']['phases'])} iterations, about {cost} on this machine")
    if "started_from" in facts:
        say(f"phase {facts['started_from']['phase']} is taken over from {facts['started_from']['run']}")
    announce_data(facts["data"])
    say(f"run: {run}")


def announce_source(source: str, where_to_get: str) -> None:
    """Say it if the pictures are generated."""
    if source == "twin":
        console.print(
            "[bold yellow]SYNTHETIC TWIN[/]: generated pictures, not patients. "
            + escape(f"For the real ones {where_to_get}, then set data.root")
        )


def announce_data(facts: dict[str, Any]) -> None:
    """What is in the splits, what was left out, what the leakage audit found."""
    counts = ", ".join(
        f"{split} {n['normal']} normal + {n['anomalous']} anomalous" for split, n in facts["counts"].items()
    )
    say(f"data: {counts}; {len(facts['skipped'])} files skipped")
    if facts["left_out"]:
        others = ", ".join(f"{count} {suffix}" for suffix, count in facts["left_out"].items())
        say(f"data: files of other kinds, left out: {others}")
    for remark in facts["remarks"]:
        warn(remark)
    audit = facts["audit"]
    pairs = [(kind, pair) for kind in ("identical", "near_identical") for pair in audit[kind]]
    for kind, pair in pairs[:MAX_LISTED_PAIRS]:
        both, where = " and ".join(pair["ids"]), " / ".join(pair["splits"])
        say(f"leakage audit: {both} are {kind.replace('_', ' ')} ({where})")
    if len(pairs) > MAX_LISTED_PAIRS:
        say(f"leakage audit: and {len(pairs) - MAX_LISTED_PAIRS} more such pairs")
    crossing = f"{audit['crossing']} pairs and {len(audit['shared_patients'])} patients across splits"
    say(f"leakage audit: {audit['checked']} pictures, {crossing}")


def _lengths(phases: dict[str, int]) -> str:
    return ", ".join(f"{name} {iterations}" for name, iterations in phases.items())
