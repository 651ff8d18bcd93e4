"""Trains a detector and scores every validation normal and test case: all code that decides weights and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from pytorch_lightning.strategies import DDPStrategy

from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.callbacks.run_callback import Columns, RunCallback
from anomaly_lab.callbacks.scoring import ValidationScore
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.scoring import Scored, score_batches
from anomaly_lab.experiment import config as configuration
from anomaly_lab.types import Batch

Progress = Callable[[int, int], None]


def construct(config: DictConfig) -> tuple[PatchDataModule, Detector]:
    """Data and detector of a resolved experiment, the weights drawn from its seed."""
    pl.seed_everything(config.seed, verbose=False)
    data: PatchDataModule = configuration.build(config.data)
    detector: Detector = configuration.build(config.detector)
    detector.to(memory_format=torch.channels_last)
    detector.accumulate = config.trainer.accumulate_grad_batches
    detector.clip_norm = config.trainer.gradient_clip_val
    return data, detector


def trainer_for(
    settings: DictConfig,
    run: Path,
    callbacks: Sequence[pl.Callback],
    max_epochs: int,
    **over: Any,
) -> pl.Trainer:
    """The Trainer of the section `trainer`, with what the engine decides.

    Args:
        settings: the section.
        run: folder the callbacks write to.
        callbacks: in the order in which they are called.
        max_epochs: Lightning epochs of the training, of which a resumed one has done some.
        over: keys of the Trainer that replace configured ones.
    """
    trainer: pl.Trainer = configuration.build(
        settings,
        max_epochs=max_epochs,
        accumulate_grad_batches=1,  # the detector does both: Lightning refuses them in manual optimisation
        gradient_clip_val=None,
        precision=precision_for(settings.precision),
        callbacks=list(callbacks),
        default_root_dir=run,
        logger=False,
        enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        inference_mode=False,  # a detector that searches its latent space needs gradients
        **({"strategy": _strategy(settings.strategy)} | over),
    )
    return trainer


def decisive_callbacks(seed: int) -> list[pl.Callback]:
    """Those that every training has: they decide its random numbers and its validation score."""
    return [Randomness(seed), ValidationScore()]


def score_all(
    data: PatchDataModule,
    detector: Detector,
    callbacks: Sequence[pl.Callback] = (),
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total: None,
) -> Columns | None:
    """Score every validation normal and every test case once.

    Every rank scores its share of the batches and calls this; only rank 0 gets the result.

    Args:
        data: set up; where it is attached to a Trainer, that knows the ranks.
        detector: trained.
        callbacks: of which RunCallbacks may add columns.
        device: to score on.
        progress: is told how many batches of how many are done.

    Returns:
        By row of the store, ascending: row [n], score [n] (float64), where there are masks anomaly_map and mask
        [n, 1, *S], and the callbacks' columns. None on other ranks.

    Raises:
        RuntimeError: not every case was scored exactly once.
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


def precision_for(asked: Any) -> Any:
    """The precision asked for, or float32 where the processor would only emulate bfloat16."""
    return "32-true" if asked == "bf16-mixed" and emulates_bfloat16() else asked


def emulates_bfloat16() -> bool:
    """Whether bfloat16 is slower than float32 here: no GPU, and a processor without instructions for it."""
    fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return not fast


def device_for(accelerator: Any) -> torch.device:
    """The device on which one process evaluates what was trained with `trainer.accelerator`."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _strategy(asked: Any) -> Any:
    """DDP as GANs need it: a step uses some of the networks only, and no buffer may change between two forwards."""
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if asked == "ddp" else asked


def _columns(batch: Batch, scored: Scored) -> Columns:
    columns: Columns = {"row": batch["row"].cpu().numpy(), "score": scored.score}
    if "mask" in batch and scored.anomaly_map is not None:
        columns |= {"anomaly_map": scored.anomaly_map, "mask": batch["mask"].cpu().numpy()}
    return columns


def _gathered(parts: list[Columns]) -> list[Columns] | None:
    """The parts of all ranks on rank 0, None elsewhere; a rank without batches has none to give, and gives that."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return parts
    first = torch.distributed.get_rank() == 0
    everywhere: list[Any] | None = [None] * torch.distributed.get_world_size() if first else None
    torch.distributed.gather_object(parts, everywhere)
    return None if everywhere is None else [part for rank in everywhere for part in rank]


def _by_row(parts: list[Columns], data: PatchDataModule) -> Columns:
    whole: dict[str, NDArray[Any]] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(whole["row"], kind="stable")
    expected = np.sort(np.concatenate([data.rows["val"], data.rows["test"]]))
    if not np.array_equal(whole["row"][order], expected):
        raise RuntimeError("not every case was scored exactly once: the loaders of the ranks do not share them out")
    return {key: value[order] for key, value in whole.items()}
