"""What is recorded and said before a training begins: what runs on what, and for how long."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.protocol import CAVEATS
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import fingerprint
from anomaly_lab.experiment.schema import TARGET, locate
from anomaly_lab.pipeline.cost import estimated_seconds

MAX_LISTED_PAIRS = 10  # pairs of alike pictures that are named on the console; the report and the data sheet list them


def facts_of(
    config: DictConfig, data: PatchDataModule, detector: Detector, begun: dict[str, Any], lent: dict[str, Any]
) -> dict[str, object]:
    """What the provenance says of this experiment.

    Args:
        config: resolved.
        data: set up.
        detector: as it begins.
        begun: what the detector read for it.
        lent: what it took over from another run; empty if nothing.
    """
    counted = {name: detector.get_submodule(name) for name in detector.networks}
    plain: Any = OmegaConf.to_container(config)
    return {
        "code": fingerprint.of_code(plain),
        "experiment": config.name,
        "seed": config.seed,
        "budget": config.budget,
        "budget_overrides": OmegaConf.to_container(config.budgets[config.budget]),
        "source": data.source,
        "detector": {
            "class": config.detector._target_,
            "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in counted.items()},
            "phases": {phase.name: phase.iterations for phase in detector.schedule},
            "caveats": [*detector.caveats, *_switched_on(config), *lent.get("caveats", [])],
            "begun_with": begun,
        },
        "data": data.facts(),
        **({"started_from": lent} if lent else {}),
    }


def _switched_on(config: DictConfig) -> list[str]:
    """What must be said of the reproduction switches of this experiment, wherever its numbers stand."""
    of_callbacks = [getattr(locate(node[TARGET]), "caveat", None) for node in config.callbacks.values()]
    return [caveat for caveat in (CAVEATS.get(config.evaluation.threshold), *of_callbacks) if caveat]


def published(paper: DictConfig) -> dict[str, object]:
    """Lengths of the publication's training and what they would cost here."""
    detector: Detector = configuration.build(paper.detector)
    lengths = {phase.name: phase.iterations for phase in detector.schedule}
    return {"phases": lengths, "estimated_seconds": round(estimated_seconds(paper))}


def announce(console: Console, run: Path, facts: dict[str, Any], where_to_get: str) -> None:
    """The first lines of the log: what runs on what, and for how long."""
    announce_source(console, facts["source"], where_to_get)
    for caveat in facts["detector"]["caveats"]:
        console.print(f"[bold yellow]{escape(caveat)}[/]")
    lengths = ", ".join(f"{name} {n}" for name, n in facts["detector"]["phases"].items())
    console.print(f"budget [bold]{facts['budget']}[/]: {lengths} iterations")
    if "paper" in facts:
        published = ", ".join(f"{name} {n}" for name, n in facts["paper"]["phases"].items())
        hours = facts["paper"]["estimated_seconds"] / 3600
        cost = f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.0f} days"
        console.print(f"budget=paper would be {published} iterations, about {cost} on this machine")
    announce_data(console, facts["data"])
    console.print(f"run: {run}")


def announce_source(console: Console, source: str, where_to_get: str) -> None:
    """Say it if the pictures are generated."""
    if source == "twin":
        console.print(
            f"[bold yellow]SYNTHETIC TWIN[/]: generated pictures, not patients. For the real ones {where_to_get}, "
            "then set data.root"
        )


def announce_data(console: Console, facts: dict[str, Any]) -> None:
    """What is in the splits, what was left out, what the leakage audit found."""
    counts = ", ".join(
        f"{split} {n['normal']} normal + {n['anomalous']} anomalous" for split, n in facts["counts"].items()
    )
    console.print(f"data: {counts}; {len(facts['skipped'])} files skipped")
    audit = facts["audit"]
    pairs = [(kind, pair) for kind in ("identical", "near_identical") for pair in audit[kind]]
    for kind, pair in pairs[:MAX_LISTED_PAIRS]:
        both, where = escape(" and ".join(pair["ids"])), " / ".join(pair["splits"])
        console.print(f"leakage audit: {both} are {kind.replace('_', ' ')} ({where})")
    if len(pairs) > MAX_LISTED_PAIRS:
        console.print(f"leakage audit: and {len(pairs) - MAX_LISTED_PAIRS} more such pairs")
    shared = len(audit["shared_patients"])
    crossing = f"{audit['crossing']} pairs and {shared} patients across splits"
    console.print(f"leakage audit: {audit['checked']} pictures, {crossing}")
