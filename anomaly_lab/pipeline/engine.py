"""The verbs: from a configuration to a report, and what can be done with a run folder afterwards."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.callbacks.record import peak_memory
from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import checkpoint_files, fingerprint, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.experiment.config import Evaluation
from anomaly_lab.pipeline import inspect as inspection
from anomaly_lab.pipeline.console import announce, announce_data, announce_source, console, quiet_lightning, say
from anomaly_lab.pipeline.evaluate import evaluate_run
from anomaly_lab.pipeline.predict import new_cases, predict_files
from anomaly_lab.pipeline.provenance import provenance, published
from anomaly_lab.pipeline.scorer import Scorer, load_weights
from anomaly_lab.pipeline.training import (
    construct,
    decisive_callbacks,
    device_for,
    emulates_bfloat16,
    precision_for,
    score_all,
    trainer_for,
)
from anomaly_lab.pipeline.warm_start import WarmStart
from anomaly_lab.reports.run_report import write_report
from anomaly_lab.types import UserError


def train_by_name(experiment: str, overrides: Sequence[str]) -> Path:
    """Train an experiment with `key=value` overrides; a laptop's budget is compared with the publication's."""
    config = configuration.load(experiment, overrides)
    reduced = config.budget == "laptop"
    return train(config, configuration.load(experiment, [*overrides, "budget=paper"]) if reduced else None)


@quiet_lightning()
def train(config: DictConfig, paper: DictConfig | None = None) -> Path:
    """Train, evaluate and report one experiment in a new run folder, whose path is returned.

    Args:
        config: resolved.
        paper: the same experiment at the publication's budget, with which a reduced one is compared.
    """
    data, detector = construct(config)
    pretrained = detector.load_pretrained()
    start = WarmStart.open(config.start_from, config.start_phase) if config.start_from else None
    if start:
        start.apply_to(detector)
    run = Path()
    if _is_first_rank():
        data.prepare_data()
        data.setup()  # before the run folder: data that cannot be used leave nothing behind
        data.check_trainable()
        facts = provenance(config, data, detector, pretrained, start.record() if start else None)
        facts["precision"] = str(precision_for(config.trainer.precision))
        if paper is not None:
            facts["paper"] = published(paper)
        run = run_folder.create(config.runs, config.name, (config.budget, *(["twin"] if data.source == "twin" else [])))
        run_folder.write_atomic(run / "config.yaml", configuration.show(config))
        run_folder.write_json(run / "provenance.json", facts | {"run": run.name})
        if start:
            start.link_into(run, with_checkpoint=detector.finished)
        announce(run, facts | {"run": run.name}, data.where_to_get)
    return _fit_and_evaluate(config, run, data, detector, checkpoint=None)


def inspect(config: DictConfig) -> Path:
    """Build or reuse the store of an experiment, say what it holds and write its data sheet, whose path is returned."""
    data: PatchDataModule = configuration.build(config.data)
    announce_source(data.source, data.where_to_get)
    if data.source == "real":
        say(f"real files: {data.folder}")
    began = time.perf_counter()
    data.setup("inspect")
    say(f"store: {inspection.origin(data, time.perf_counter() - began)}")
    facts = data.facts()
    announce_data(facts)
    page = inspection.inspect(Path(config.runs) / config.name / "data", config.name, data, facts)
    say(f"manifest: {page.with_name('manifest.csv')}")
    say(f"data sheet: {page}")
    return page


@quiet_lightning()
def resume(path: str) -> Path:
    """Continue a run from its newest intact checkpoint as if it had never stopped."""
    run = run_folder.open_run(path)
    config = configuration.recall(run / "config.yaml")
    facts = run_folder.read_json(run / "provenance.json")
    torch.set_num_threads(facts.get("threads", torch.get_num_threads()))
    if facts.get("finished"):
        raise UserError(f"{run} is finished: there is nothing to resume; to evaluate it again: make evaluate RUN={run}")
    checkpoint = checkpoint_files.newest(run)
    data, detector = construct(config)
    if checkpoint is None:
        detector.load_pretrained()
        if config.start_from:
            WarmStart.open(config.start_from, config.start_phase).apply_to(detector)
    if _is_first_rank():
        data.prepare_data()
        data.setup()
        say(f"resuming {run} from {'its beginning (no checkpoint yet)' if checkpoint is None else checkpoint.name}")
        entry = {"at": run_folder.now(), "from": checkpoint and checkpoint.name}
        run_folder.update_provenance(run, resumed=[*facts.get("resumed", []), entry])
    return _fit_and_evaluate(config, run, data, detector, checkpoint)


@quiet_lightning()
def evaluate(path: str) -> Path:
    """Score and evaluate a trained run again, from its folder alone and on one process."""
    run = run_folder.open_run(path)
    config, data, detector = _restore(run)
    with Meter("scoring", "batch") as meter:
        scored = score_all(data, detector, device=device_for(config.trainer.accelerator), progress=meter.show)
    assert scored is not None, "one process scores everything"
    evaluate_run(run, _evaluation(config), data, detector, scored)
    _note_evaluating_code(run, config)
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
    scorer = Scorer.open(run)
    source = Path(folder)
    cases = new_cases(source, Path(masks) if masks else None)
    target = Path(out) if out else run / "predictions" / source.resolve().name
    written = predict_files(run.name, scorer, cases, target)
    say(f"scores and maps: {written}; page: {written / 'index.html'}")
    return written


def _restore(run: Path) -> tuple[DictConfig, PatchDataModule, Detector]:
    """Configuration, data and trained detector of a run."""
    config = configuration.recall(run / "config.yaml")
    data, detector = construct(config)
    load_weights(run, detector)
    data.prepare_data()
    data.setup()
    return config, data, detector


def _fit_and_evaluate(
    config: DictConfig, run: Path, data: PatchDataModule, detector: Detector, checkpoint: Path | None
) -> Path:
    if config.trainer.precision == "bf16-mixed" and emulates_bfloat16() and _is_first_rank():
        say("trainer.precision=bf16-mixed: this processor only emulates it, training in float32 instead")
    named: list[pl.Callback] = [configuration.build(node) for node in config.callbacks.values()]
    with _alone(run):
        trainer = trainer_for(
            config.trainer,
            run,
            [*decisive_callbacks(config.seed), *named],
            detector.schedule.epochs_left(_beginning(config, detector), data.epoch_length),
            plugins=[CheckpointFiles()],
        )
        trainer.fit(detector, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
        began = time.perf_counter()
        with Meter("scoring", "batch", silent=not trainer.is_global_zero) as meter:
            scored = score_all(data, detector, named, trainer.strategy.root_device, meter.show)
        if scored is not None:
            run_folder.update_provenance(run, scoring_seconds=time.perf_counter() - began, peak_gb=peak_memory())
            callbacks = [callback for callback in named if isinstance(callback, RunCallback)]
            for callback in callbacks:
                callback.on_scored(run, data, detector, scored)
            evaluate_run(run, _evaluation(config), data, detector, scored)
            _conclude(run, detector, callbacks)
        trainer.strategy.barrier()
    return run


def _conclude(run: Path, detector: Detector, callbacks: list[RunCallback]) -> None:
    """What comes after the evaluation: the record is closed, the report written."""
    chosen = (callback.checkpoint_choice() for callback in callbacks)
    choice = next(filter(None, chosen), {"rule": "last", "iteration": detector.iterations_done})
    threads = torch.get_num_threads()  # Lightning shares the cores out among processes: evaluate needs as many
    run_folder.update_provenance(run, finished=run_folder.now(), checkpoint=choice, threads=threads)
    _reported(run)
    for callback in callbacks:
        callback.on_run_end(run)


def _reported(run: Path) -> Path:
    """Write a run's report and say where it is."""
    page = write_report(run)
    console.print(f"report: {page}")
    return page


def _note_evaluating_code(run: Path, config: DictConfig) -> None:
    """The weights were made by the code of the record, the metrics by today's."""
    before = run_folder.read_json(run / "provenance.json").get("code", "")
    training = before["training"] if isinstance(before, dict) else before
    plain: Any = OmegaConf.to_container(config)
    evaluation = fingerprint.of_code(plain)["evaluation"]
    run_folder.update_provenance(run, code={"training": training, "evaluation": evaluation})


def _evaluation(config: DictConfig) -> Evaluation:
    settings: Any = OmegaConf.to_object(config.evaluation)
    assert isinstance(settings, Evaluation)
    return settings


def _beginning(config: DictConfig, detector: Detector) -> int:
    """Iterations that were done when the run's first epoch began."""
    return detector.schedule.span(config.start_phase).stop if config.start_from else 0


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
