"""Build the Trainer and score every validation normal and test case: the code that determines weights and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import DDPStrategy

from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.callbacks.run_callback import Columns, RunCallback
from anomaly_lab.callbacks.scoring import ValidationScore
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.devices import precision_for
from anomaly_lab.evaluation.map_score import MAX_NORMALS, MapScore
from anomaly_lab.evaluation.memory import Memory
from anomaly_lab.evaluation.scoring import Scored, score_batches
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.pipeline.distributed import OneNetworkAtATime, chosen_strategy
from anomaly_lab.types import Batch, UserError

Progress = Callable[[int, int], None]
COMPILATIONS: dict[str, dict[str, Any] | None] = {  # arguments of torch.compile by the setting `compile`
    "never": None,
    "networks": {},
    "graphs": {"mode": "reduce-overhead", "dynamic": False},
}


def construct(config: DictConfig) -> tuple[PatchDataModule, Detector]:
    """Construct the data module and the detector of a resolved experiment; the seed determines the initial weights.

    Examples:
        >>> config = configuration.load("ganomaly_headct", ["budget=smoke"])
        >>> data, detector = construct(config)
        >>> type(data).__name__, type(detector).__name__
        ('HeadCT', 'GANomaly')
    """
    pl.seed_everything(config.seed, verbose=False)
    data: PatchDataModule = configuration.build(config.data)
    detector: Detector = configuration.build(config.detector)
    detector.refuse_gaps()
    if detector.supervised and data.labelling is None:
        raise UserError(f"{type(detector).__name__} learns from labelled anomalies: set data.supervision=labels")
    detector.to(memory_format=torch.channels_last)
    detector.accumulate = config.trainer.accumulate_grad_batches
    detector.clip_norm = config.trainer.gradient_clip_val
    detector.compilation = COMPILATIONS[config.compile]
    return data, detector


def trainer_for(
    settings: DictConfig,
    run: Path,
    callbacks: Sequence[pl.Callback],
    max_epochs: int,
    **over: Any,
) -> pl.Trainer:
    """Construct the Trainer from the section `trainer` and the arguments that the engine sets.

    Args:
        settings: the section `trainer`.
        run: the run folder, to which the callbacks write.
        callbacks: the callbacks in the order in which they are called.
        max_epochs: Lightning epochs of the whole training, including those before a resume.
        over: arguments of the Trainer that override configured ones.

    Examples:
        >>> config = configuration.load("ganomaly_headct", ["budget=smoke"])
        >>> trainer = trainer_for(config.trainer, run, decisive_callbacks(config.seed), 10)  # doctest: +SKIP
    """
    trainer: pl.Trainer = configuration.build(
        settings,
        max_epochs=max_epochs,
        accumulate_grad_batches=1,  # the detector implements both: Lightning rejects them in manual optimisation
        gradient_clip_val=None,
        precision=precision_for(settings.precision),
        benchmark=_benchmark(settings),
        callbacks=list(callbacks),
        default_root_dir=run.resolve(),  # Lightning expands ~ and folds a/.. in what it gives the callbacks
        logger=False,
        enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        inference_mode=False,  # a detector that searches its latent space needs gradients
        sync_batchnorm=False,  # several processes share their statistics whatever the device (`SharedDraws`)
        **({"strategy": _strategy(settings)} | over),
    )
    return trainer


def decisive_callbacks(seed: int) -> list[pl.Callback]:
    """Return the callbacks that every training has; they determine its random numbers and its validation score.

    Examples:
        >>> [type(callback).__name__ for callback in decisive_callbacks(seed=0)]
        ['Randomness', 'ValidationScore']
    """
    return [Randomness(seed), ValidationScore()]


def score_all(
    data: PatchDataModule,
    detector: Detector,
    callbacks: Sequence[pl.Callback] = (),
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total: None,
) -> Columns | None:
    """Score every validation case and every test case once.

    All ranks call this and score their share of the batches; only rank 0 gets the result.

    Args:
        data: the data set, set up; attached to a Trainer if there are several ranks.
        detector: the trained detector.
        callbacks: callbacks; a RunCallback may add columns.
        device: device to score on.
        progress: called with the number of finished batches and their total.

    Returns:
        Columns sorted by row of the store: row [n], score [n] (float64), anomaly_map and mask [n, 1, *S] if there are
        masks, probability [n, K] (float64) of a detector with classes, components [n, K] of one that names the terms of
        its score, and the callbacks' columns. None on ranks other than 0.

    Raises:
        RuntimeError: not every case was scored exactly once.

    Examples:
        >>> scored = score_all(data, detector)  # doctest: +SKIP
        >>> scored["row"].shape == scored["score"].shape  # doctest: +SKIP
        True
    """
    detector.to(device)
    loader = data.test_dataloader()
    parts: list[Columns] = []
    for batch, scored in score_batches(detector.score, loader, device):
        columns = _columns(batch, scored)
        for callback in callbacks:
            if isinstance(callback, RunCallback):
                columns |= callback.scored_columns(data, batch, scored)
        parts.append(columns)
        progress(len(parts), len(loader))
    return _by_row(gathered, data) if (gathered := _gathered(parts)) is not None else None


def refuse_rule(rule: ScoreRule, data: PatchDataModule, detector: Detector) -> None:
    """Refuse a rule by which a detector cannot score these data; called before it is trained, and before it scores.

    Raises:
        UserError: a setting has no effect; the detector has no map, or none with a sign, or places mean nothing since
            windows are scored; or features are asked for of volumes, or without the package that has them.

    Examples:
        >>> refuse_rule(ScoreRule("map"), data, detector)  # doctest: +SKIP
    """
    _refuse_idle(rule)
    _refuse_incapable(rule, data, detector)


def _refuse_incapable(rule: ScoreRule, data: PatchDataModule, detector: Detector) -> None:
    if rule.source == "detector":
        return
    if rule.measures and data.patch_sampling is not None:
        raise UserError(
            "score.standardise=place, score.features: with data.cut a place is another one in every window; set "
            "score.standardise=none score.features=false"
        )
    if rule.measures and rule.normals == "validation":
        rows = data.rows["val"]
        patients = len(np.unique(np.array(data.store.index.columns["patient"])[rows]))
        if patients < len(rows):
            raise UserError(
                f"score.normals=validation: each of the {len(rows)} validation normals is judged by the others, which "
                f"are of only {patients} patients, so by its own patient's; set score.normals=training"
            )
    settings = detector.settings
    if rule.features:
        Memory((settings.in_channels, *settings.patch_size))
    image = torch.zeros(1, settings.in_channels, *settings.patch_size, device=detector.device)
    with torch.random.fork_rng():  # a search for a latent code draws numbers
        MapScore(rule)(image, detector.score(Batch(image=image)))  # in eval mode; training_step sets the modes it needs


def settle_rule(score: DictConfig, said: Sequence[str]) -> None:
    """Set the settings of a score that is another one now, and that nobody has asked for, to their defaults.

    Args:
        score: the section `score` of a run with the user's words; modified in place.
        said: these words, `key=value`.

    Raises:
        UserError: one that was asked for has no effect.

    Examples:
        >>> score = OmegaConf.structured(ScoreRule("detector", smooth=2.0, sign="bright"))
        >>> settle_rule(score, ["score.from=detector"])
        >>> score.smooth, score.sign
        (0.0, 'both')
    """
    rule: Any = OmegaConf.to_object(score)
    for name in _idle(rule).keys() - {word.partition("=")[0].removeprefix("score.") for word in said}:
        score[name] = getattr(ScoreRule(), name)
    _refuse_idle(cast("ScoreRule", OmegaConf.to_object(score)))


def _refuse_idle(rule: ScoreRule) -> None:
    if idle := _idle(rule):
        said, left_out = (
            " ".join(f"score.{name}={str(getattr(each, name)).lower()}" for name in idle)
            for each in (rule, ScoreRule())
        )
        raise UserError(f"{said}: no effect on the score; set {next(iter(idle.values()))}, or {left_out}")


def _idle(rule: ScoreRule) -> dict[str, str]:
    """Return the settings that differ from their defaults and have no effect, and what each of them needs."""
    if rule.source == "detector":
        needs = {each.name: "score.from=map" for each in fields(rule) if each.name != "source"}
    else:
        unused = {
            "top": (rule.pool != "top", "score.pool=top"),
            "share": (not rule.features, "score.features=true"),
            "normals": (not rule.measures, "score.standardise=place"),
        }
        needs = {name: need for name, (is_idle, need) in unused.items() if is_idle}
    return {name: need for name, need in needs.items() if getattr(rule, name) != getattr(ScoreRule(), name)}


def score_by(
    rule: ScoreRule, data: PatchDataModule, detector: Detector, device: torch.device | str = "cpu"
) -> MapScore | None:
    """Let a trained detector score as `score` says; places are measured on normals where the rule asks for it.

    All ranks call this, and measure the same.

    Args:
        rule: the section `score`.
        data: the data set, set up.
        detector: the trained detector; its `score` follows the rule from now on.
        device: device to score on.

    Returns:
        What was measured, to be saved with the run; None for the detector's own score.

    Raises:
        UserError: the detector cannot score these data so, see `refuse_rule`.

    Examples:
        >>> score_by(ScoreRule("map", sign="bright"), data, detector)  # doctest: +SKIP
    """
    detector.rescored = None
    if rule.source == "detector":
        return None
    _refuse_incapable(rule, data, detector)
    split = "train" if rule.normals == "training" else "val"
    images, held_out = (data.images(of, at_most=MAX_NORMALS) for of in (split, "val"))
    fitted = MapScore.fit(rule, detector.to(device).score, images, device, held_out)
    detector.rescored = fitted
    return fitted


def device_for(accelerator: Any) -> torch.device:
    """Return the device on which a single process evaluates a run.

    Args:
        accelerator: the setting `trainer.accelerator`, such as "auto", "gpu" or "cpu".

    Examples:
        >>> device_for("cpu")
        device(type='cpu')
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def refuse_accelerator(accelerator: Any) -> None:
    """Refuse to train on a GPU where there is none; called before anything is written.

    Args:
        accelerator: the setting `trainer.accelerator`.

    Raises:
        UserError: so it is.

    Examples:
        >>> refuse_accelerator("auto")
    """
    if accelerator in ("gpu", "cuda", "mps") and device_for(accelerator).type == "cpu":
        raise UserError(
            f"trainer.accelerator={accelerator}: torch finds none on this machine; leave it out, or set "
            "trainer.accelerator=cpu"
        )


def _benchmark(settings: DictConfig) -> Any:
    """Let cuDNN look for the fastest convolution of each shape, on a GPU and unless something else was said."""
    said = settings.benchmark is not None or settings.deterministic
    return settings.benchmark if said or not torch.cuda.is_available() else True


def _strategy(settings: DictConfig) -> Any:
    is_parallel = isinstance(chosen_strategy(settings), DDPStrategy)
    return OneNetworkAtATime() if is_parallel else settings.strategy


def _columns(batch: Batch, scored: Scored) -> Columns:
    columns: Columns = {"row": batch["row"].cpu().numpy(), "score": scored.score}
    if scored.components is not None:
        columns["components"] = scored.components
    if "mask" in batch and scored.anomaly_map is not None:
        columns |= {"anomaly_map": scored.anomaly_map, "mask": batch["mask"].cpu().numpy()}
    if scored.probability is not None:
        columns["probability"] = scored.probability
    return columns


def _gathered(parts: list[Columns]) -> list[Columns] | None:
    """Return the parts of all ranks on rank 0, None on others; a rank without batches contributes an empty list."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return parts
    first = torch.distributed.get_rank() == 0
    everywhere: list[Any] | None = [None] * torch.distributed.get_world_size() if first else None
    torch.distributed.gather_object(parts, everywhere)
    return None if everywhere is None else [part for rank in everywhere for part in rank]


def _by_row(parts: list[Columns], data: PatchDataModule) -> Columns:
    whole: dict[str, NDArray[Any]] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(whole["row"], kind="stable")
    expected = np.sort(np.concatenate(list(data.scored.values())))
    if not np.array_equal(whole["row"][order], expected):
        raise RuntimeError(
            "not every case was scored exactly once: the loaders of the ranks do not partition the cases"
        )
    return {key: value[order] for key, value in whole.items()}
