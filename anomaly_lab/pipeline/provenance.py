"""Provenance of a run: its configuration, code, data and machine, recorded before training starts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.protocol import CAVEATS
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import fingerprint, run_folder
from anomaly_lab.experiment.config import ThresholdRule
from anomaly_lab.experiment.schema import TARGET, locate
from anomaly_lab.pipeline.cost import estimated
from anomaly_lab.pipeline.expected_input import describe


def provenance(
    config: DictConfig,
    data: PatchDataModule,
    detector: Detector,
    pretrained: Mapping[str, Any],
    start: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the content of provenance.json at the start of a run.

    Args:
        config: the resolved experiment.
        data: the data set, set up.
        detector: the detector before training.
        pretrained: facts about pretrained weights, from `Detector.load_pretrained`.
        start: what `WarmStart.record` returns; None for training from scratch.

    Examples:
        >>> provenance(config, data, detector, {}, None)["source"]  # doctest: +SKIP
        'twin'
    """
    plain: Any = OmegaConf.to_container(config)
    caveats = [*detector.caveats, *data.caveats, *_switched_on(config), *(start or {}).get("caveats", [])]
    return run_folder.provenance() | {
        "id": secrets.token_hex(8),
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
        "data": data.facts() | {"input": describe(data)},
        **({"started_from": dict(start)} if start else {}),
    }


def published(paper: DictConfig) -> dict[str, Any]:
    """Return the phases of the paper budget and the seconds they would take on this machine, and on a GPU.

    Args:
        paper: the experiment, resolved at the paper budget.

    Examples:
        >>> published(configuration.load("fanogan_headct", ["budget=paper"]))  # doctest: +SKIP
        {'phases': {'gan': 50000, 'encoder': 50000}, 'estimated_seconds': 190000, 'gpu_seconds': 4000}
    """
    detector: Detector = configuration.build(paper.detector)
    cost = estimated(paper)
    return {
        "phases": _iterations(detector),
        "estimated_seconds": round(cost.seconds),
        "gpu_seconds": round(cost.gpu_seconds),
    }


def evaluated_by(rule: ThresholdRule, caveats: Sequence[str]) -> list[str]:
    """Return a run's caveats once its threshold is set by a rule: with that of this rule, if any, and of no other.

    Args:
        rule: sets the threshold.
        caveats: those that the run had.

    Examples:
        >>> evaluated_by("normal_quantile", ["evaluation.threshold=test_max_f1: too optimistic", "random weights"])
        ['random weights']
    """
    others = [caveat for caveat in caveats if not caveat.startswith("evaluation.threshold=")]
    return [*others, *([CAVEATS[rule]] if rule in CAVEATS else [])]


def _switched_on(config: DictConfig) -> list[str]:
    """Return the caveats of the reproduction switches that are on; they accompany the results everywhere."""
    of_callbacks = [getattr(locate(node[TARGET]), "caveat", None) for node in config.callbacks.values()]
    return [caveat for caveat in (CAVEATS.get(config.evaluation.threshold), *of_callbacks) if caveat]


def _parameters(detector: Detector) -> dict[str, int]:
    networks = {name: detector.get_submodule(name) for name in detector.networks}
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


def _iterations(detector: Detector) -> dict[str, int]:
    return {phase.name: phase.iterations for phase in detector.schedule}
