"""What the record says of a run before it begins: what runs on what, with which code and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.protocol import CAVEATS
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import fingerprint, run_folder
from anomaly_lab.experiment.schema import TARGET, locate
from anomaly_lab.pipeline.cost import estimated_seconds


def provenance(
    config: DictConfig,
    data: PatchDataModule,
    detector: Detector,
    pretrained: Mapping[str, Any],
    start: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of provenance.json.

    Args:
        config: resolved.
        data: set up.
        detector: as its training begins.
        pretrained: what it loaded from elsewhere.
        start: what `WarmStart.record` says; None for a cold start.
    """
    plain: Any = OmegaConf.to_container(config)
    caveats = [*detector.caveats, *_switched_on(config), *(start or {}).get("caveats", [])]
    return run_folder.provenance() | {
        "code": fingerprint.of_code(plain),
        "experiment": config.name,
        "seed": config.seed,
        "budget": config.budget,
        "budget_overrides": OmegaConf.to_container(config.budgets[config.budget]),
        "source": data.source,
        "detector": {
            "class": config.detector[TARGET],
            "parameters": _parameters(detector),
            "phases": _iterations(detector),
            "caveats": caveats,
            "begun_with": dict(pretrained),
        },
        "data": data.facts(),
        **({"started_from": dict(start)} if start else {}),
    }


def published(paper: DictConfig) -> dict[str, Any]:
    """Lengths of the publication's training and what they would cost here."""
    detector: Detector = configuration.build(paper.detector)
    return {"phases": _iterations(detector), "estimated_seconds": round(estimated_seconds(paper))}


def _switched_on(config: DictConfig) -> list[str]:
    """What must be said of the reproduction switches of this experiment, wherever its numbers stand."""
    of_callbacks = [getattr(locate(node[TARGET]), "caveat", None) for node in config.callbacks.values()]
    return [caveat for caveat in (CAVEATS.get(config.evaluation.threshold), *of_callbacks) if caveat]


def _parameters(detector: Detector) -> dict[str, int]:
    networks = {name: detector.get_submodule(name) for name in detector.networks}
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


def _iterations(detector: Detector) -> dict[str, int]:
    return {phase.name: phase.iterations for phase in detector.schedule}
