"""From a configuration to a report: builds the objects, runs the Trainer, judges, writes the record."""

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from pytorch_lightning.strategies import DDPStrategy
from rich.console import Console
from rich.markup import escape

from anomaly_lab.callbacks import checkpoints
from anomaly_lab.callbacks.best_test_epoch import BestTestEpoch
from anomaly_lab.callbacks.checkpoints import CheckpointFiles
from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.callbacks.scoring import Scoring
from anomaly_lab.callbacks.wandb import WandB
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import run_folder
from anomaly_lab.pipeline import inspect as inspection
from anomaly_lab.pipeline import provenance
from anomaly_lab.pipeline.evaluate import evaluate_run
from anomaly_lab.pipeline.predict import new_cases, predict_files
from anomaly_lab.pipeline.warm_start import PHASE, link_checkpoint, link_pool, take_over
from anomaly_lab.reports.run_report import write_report
from anomaly_lab.types import UserError

console = Console(stderr=True, highlight=False, soft_wrap=True)
for talkative in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
    logging.getLogger(talkative).setLevel(logging.WARNING)  # our own first lines say what runs where


warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")  # Lightning 2.6 on a recent torch
warnings.filterwarnings("ignore", ".*does not have many workers.*")  # a batch is one index into a memory map
warnings.filterwarnings("ignore", ".*but have no `val_dataloader`.*")  # measuring what the paper's budget would take
warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # training_step sets each phase's modes


def train(config: DictConfig, paper: DictConfig | None = None) -> Path:
    """Train, judge and report one experiment in a new run folder, whose path is returned.

    `paper`, the same experiment at the publication's budget, is what a reduced one is compared with.
    """
    data, detector = construct(config)
    begun = detector.load_pretrained()
    lent = take_over(config.start_from, detector) if config.start_from else {}
    run = Path()
    if _is_first_rank():
        data.prepare_data()
        data.setup()  # before the run folder: data that cannot be used leave nothing behind
        data.check_trainable()
        facts = run_folder.provenance() | provenance.facts_of(config, data, detector, begun, lent)
        facts["precision"] = str(precision_for(config.trainer.precision))
        if paper is not None:
            facts["paper"] = provenance.published(paper)
        run = run_folder.create(config.runs, config.name, (config.budget, *(["twin"] if data.source == "twin" else [])))
        run_folder.write_atomic(run / "config.yaml", configuration.show(config))
        run_folder.write_json(run / "provenance.json", facts | {"run": run.name})
        if config.start_from:
            link_pool(config.start_from, run)
            if detector.finished:
                link_checkpoint(config.start_from, run)
            console.print(f"phase {PHASE} is taken over from {escape(config.start_from)}")
        provenance.announce(console, run, facts, data.where_to_get)
    return _fit_and_evaluate(config, run, data, detector, checkpoint=None)


def inspect(config: DictConfig) -> Path:
    """Build or reuse the store of an experiment, say what it holds and write its data sheet, whose path is returned."""
    data: PatchDataModule = configuration.build(config.data)
    provenance.announce_source(console, data.source, data.where_to_get)
    if data.source == "real":
        console.print(f"real files: {escape(str(data.folder))}")
    began = time.perf_counter()
    data.setup("inspect")
    console.print(f"store: {inspection.origin(data, time.perf_counter() - began)}")
    facts = data.facts()
    provenance.announce_data(console, facts)
    page = inspection.inspect(Path(config.runs) / config.name / "data", config.name, data, facts)
    console.print(f"manifest: {escape(str(page.with_name('manifest.csv')))}")
    console.print(f"data sheet: {escape(str(page))}")
    return page


def resume(path: str) -> Path:
    """Continue a run from its newest intact checkpoint as if it had never stopped."""
    run = run_folder.open_run(path)
    config = configuration.recall(run / "config.yaml")
    torch.set_num_threads(run_folder.read_json(run / "provenance.json").get("threads", torch.get_num_threads()))
    if run_folder.read_json(run / "provenance.json").get("finished"):
        raise UserError(f"{run} is finished: there is nothing to resume; to judge it again: make evaluate RUN={run}")
    checkpoint = checkpoints.newest(run)
    data, detector = construct(config)
    if checkpoint is None:
        detector.load_pretrained()
    if config.start_from and checkpoint is None:
        take_over(config.start_from, detector)
    if _is_first_rank():
        data.prepare_data()
        data.setup()
        began = "its beginning (no checkpoint yet)" if checkpoint is None else checkpoint.name
        console.print(f"resuming {run} from {began}")
        before = run_folder.read_json(run / "provenance.json").get("resumed", [])
        run_folder.update_provenance(
            run, resumed=[*before, {"at": run_folder.now(), "from": checkpoint and checkpoint.name}]
        )
    return _fit_and_evaluate(config, run, data, detector, checkpoint)


def evaluate(path: str) -> Path:
    """Score and judge a trained run again, from its folder alone and on one process."""
    run = run_folder.open_run(path)
    config, data, detector = _restore(run)
    scoring = Scoring()
    trainer = trainer_for(config, run, data, detector, [scoring], devices=1, strategy="auto")
    trainer.test(detector, data, verbose=False)
    evaluate_run(run, config.evaluation, data, detector, scoring.gathered())
    return _reported(run)


def report(path: str) -> Path:
    """Write a run's report again from its record."""
    return _reported(run_folder.open_run(path))


def predict(path: str, folder: str, out: str | None = None, masks: str | None = None) -> Path:
    """Score every picture and volume in or below `folder` with a trained run: scores.csv, a map of each and a page.

    Raises:
        UserError: the run is not trained, or there is nothing to score.
    """
    run = run_folder.open_run(path)
    _, data, detector = _restore(run)
    source = Path(folder)
    cases = new_cases(source, Path(masks) if masks else None)
    target = Path(out) if out else run / "predictions" / source.resolve().name
    written = predict_files(run, data, detector, cases, target)
    console.print(f"scores and maps: {written}; page: {written / 'index.html'}")
    return written


def construct(config: DictConfig) -> tuple[PatchDataModule, Detector]:
    """Data and detector of an experiment, the weights drawn from its seed."""
    pl.seed_everything(config.seed, verbose=False)
    data: PatchDataModule = configuration.build(config.data)
    detector: Detector = configuration.build(config.detector)
    detector.to(memory_format=torch.channels_last)
    detector.accumulate = config.trainer.accumulate_grad_batches
    detector.clip_norm = config.trainer.gradient_clip_val
    return data, detector


def _restore(run: Path) -> tuple[DictConfig, PatchDataModule, Detector]:
    """Configuration, data and trained detector of a run."""
    config = configuration.recall(run / "config.yaml")
    torch.set_num_threads(run_folder.read_json(run / "provenance.json").get("threads", torch.get_num_threads()))
    data, detector = construct(config)
    path = checkpoints.newest(run)
    if path is None:
        raise UserError(f"{run} has no checkpoint to judge; train it first: make resume RUN={run}")
    detector.load_state_dict(checkpoints.load(path)["state_dict"])
    if not detector.ready:
        raise UserError(f"{run} is not trained far enough to score; go on with: make resume RUN={run}")
    data.prepare_data()
    data.setup()
    return config, data, detector


def _fit_and_evaluate(
    config: DictConfig, run: Path, data: PatchDataModule, detector: Detector, checkpoint: Path | None
) -> Path:
    named = {name: configuration.build(node) for name, node in config.callbacks.items()}
    scoring = Scoring()
    with _alone(run):
        trainer = trainer_for(config, run, data, detector, [Randomness(config.seed), scoring, *named.values()])
        trainer.fit(detector, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
        trainer.test(detector, datamodule=data, verbose=False)
        scores = scoring.gathered()
        if trainer.is_global_zero:
            evaluate_run(run, config.evaluation, data, detector, scores)
            chosen = [callback.chosen for callback in named.values() if isinstance(callback, BestTestEpoch)]
            facts = next(filter(None, chosen), {"rule": "last", "iteration": detector.iterations_done})
            threads = torch.get_num_threads()  # Lightning shares the cores out among processes: evaluate needs as many
            run_folder.update_provenance(run, finished=run_folder.now(), checkpoint=facts, threads=threads)
            _reported(run)
            for callback in named.values():
                if isinstance(callback, WandB):
                    callback.finish(run)
        trainer.strategy.barrier()
    return run


def trainer_for(
    config: DictConfig,
    run: Path,
    data: PatchDataModule,
    detector: Detector,
    callbacks: list[Any],
    **over: Any,
) -> pl.Trainer:
    """The Trainer of the configuration, with what the engine decides; `over` replaces configured keys."""
    trainer: pl.Trainer = configuration.build(
        config.trainer,
        max_epochs=detector.schedule.epochs_left(_beginning(config, detector), data.epoch_length),
        accumulate_grad_batches=1,  # the detector does both: Lightning refuses them in manual optimisation
        gradient_clip_val=None,
        precision=precision_for(config.trainer.precision),
        callbacks=callbacks,
        plugins=[CheckpointFiles()],
        default_root_dir=run,
        logger=False,
        enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        inference_mode=False,  # a detector that searches its latent space needs gradients
        **({"strategy": _strategy(config.trainer.strategy)} | over),
    )
    return trainer


def _reported(run: Path) -> Path:
    """Write a run's report and say where it is."""
    page = write_report(run)
    console.print(f"report: {page}")
    return page


def _beginning(config: DictConfig, detector: Detector) -> int:
    """Iterations that were done when the run's first epoch began."""
    return detector.schedule.span(PHASE).stop if config.start_from else 0


def _strategy(asked: Any) -> Any:
    """DDP as GANs need it: a step uses some of the networks only, and no buffer may change between two forwards."""
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if asked == "ddp" else asked


def precision_for(asked: Any) -> Any:
    """The precision asked for, or float32 where the processor would only emulate bfloat16."""
    fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if asked == "bf16-mixed" and not fast:
        console.print("trainer.precision=bf16-mixed: this processor only emulates it, training in float32 instead")
        return "32-true"
    return asked


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Holds the run folder for this process; ranks but the first have none."""
    if not _is_first_rank():
        yield
        return
    lock = FileLock(run / ".lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout as error:
        raise UserError(f"{run} is being trained by another process; wait for it or stop it") from error


def _is_first_rank() -> bool:
    """Before Lightning knows: launchers say the rank in the environment."""
    return all(os.environ.get(key, "0") == "0" for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))
