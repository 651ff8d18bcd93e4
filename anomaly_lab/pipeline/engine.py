"""The commands: train an experiment, then resume, evaluate, report or predict with its run folder."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.callbacks.interruption import Interruption
from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.callbacks.record import peak_memory
from anomaly_lab.callbacks.run_callback import RunCallback, changes_scores
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.splitting.recorded import SPLIT
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.devices import emulates_bfloat16, precision_for
from anomaly_lab.evaluation.map_score import MAX_NORMALS
from anomaly_lab.evaluation.planted import RULES, Planting, Ranked, Trial, rank
from anomaly_lab.experiment import checkpoint_files, fingerprint, record, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.experiment.config import Evaluation, ScoreRule
from anomaly_lab.experiment.quality import FILE as QUALITY_FILE
from anomaly_lab.experiment.schema import TARGET, locate
from anomaly_lab.experiment.words import own_settings
from anomaly_lab.pipeline import identity, launchers
from anomaly_lab.pipeline import inspect as inspection
from anomaly_lab.pipeline.console import (
    announce,
    announce_data,
    announce_result,
    announce_source,
    console,
    quiet_lightning,
    say,
    warn,
)
from anomaly_lab.pipeline.evaluate import evaluate_run, refuse_reference
from anomaly_lab.pipeline.identity import AS_RECORDED, DataAsked
from anomaly_lab.pipeline.predict import LEFT_OUT, Predicted, Request, asked, counted, new_files, predict_files
from anomaly_lab.pipeline.prediction_folder import opened, place_for
from anomaly_lab.pipeline.processes import ENDED, Processes, is_of_another, together
from anomaly_lab.pipeline.provenance import evaluated_by, provenance, published
from anomaly_lab.pipeline.quality import Words, measured
from anomaly_lab.pipeline.reevaluate import (
    evaluate_each,
    evaluate_recorded,
    figures_of,
    refuse_unrecorded,
    runs_below,
    source_of,
)
from anomaly_lab.pipeline.scorer import Scorer, load_weights
from anomaly_lab.pipeline.training import (
    construct,
    decisive_callbacks,
    device_for,
    refuse_accelerator,
    refuse_rule,
    score_all,
    score_by,
    settle_rule,
    trainer_for,
)
from anomaly_lab.pipeline.warm_start import WarmStart
from anomaly_lab.reports.cards import renew_cards, write_cards
from anomaly_lab.reports.prediction_page import Scoring
from anomaly_lab.reports.record import read_run
from anomaly_lab.reports.run_report import write_report
from anomaly_lab.types import FailedElsewhereError, Schedule, Stopped, UserError

OF_OTHER_CODE = "The training was resumed with other code than it began with, so no version of the code repeats it."
MAX_NAMED = 5  # files that were not scored and are named on the console
LOADING = tuple(f"data.store.{name}" for name in ("folder", "num_workers", "scoring_batch_size", "on_bad"))
EVALUATE = ("evaluation", "score", "trainer.accelerator", *LOADING)  # what may be said otherwise of a run that exists
QUALITY = ("trainer.accelerator", *LOADING)
RESUME = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "callbacks", *LOADING)


@quiet_lightning()
def train_by_name(experiment: str, overrides: Sequence[str], into: str | None = None) -> Path:
    """Train an experiment by name.

    Args:
        experiment: name of the experiment.
        overrides: `key=value` words. The cost of the paper budget is estimated: at this budget so that one knows what
            has begun, at the laptop budget for comparison.
        into: the run folder, chosen beforehand; a run that is there already is continued, or left alone if it is
            finished, so that the same command can be repeated until the run is finished. None for a new one.

    Returns:
        The run folder.

    Raises:
        UserError: as `train` and `resume` do; or the run in the folder is another one.

    Examples:
        >>> train_by_name("ganomaly_headct", ["budget=smoke"])  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-smoke-twin-1a2b')
    """
    with together() as processes:
        config = configuration.load(experiment, overrides)
        place = Path(into) if into is not None else None
        if place and processes.from_first((place / "config.yaml").exists()):
            return _finish(place, config, [word for word in overrides if word.startswith(launchers.KEYS)], processes)
        if place:
            run_folder.refuse_here(place)
        estimated = config.budget in ("laptop", "paper")
        paper = configuration.load(experiment, [*overrides, "budget=paper"]) if estimated else None
        return train(config, paper, place, overrides)


def _finish(run: Path, config: DictConfig, numbers: Sequence[str], processes: Processes) -> Path:
    """Continue a run that is not finished, if it is a run of this experiment."""
    recorded, asked = (_plain(each) for each in (configuration.recall(run / "config.yaml"), config))
    is_other = _is_another_start(run, recorded["start_from"], asked["start_from"])
    if key := fingerprint.difference(recorded, asked) or ("start_from" if is_other else None):
        now, before = (OmegaConf.select(OmegaConf.create(each), key) for each in (asked, recorded))
        raise UserError(
            f"{run} is a run with {key}={before}, not {now}; name another folder, or to continue it as it is: "
            f"make resume RUN={run}"
        )
    identity.refuse_other_data(config, run)
    processes.in_turn(lambda: identity.refuse_other_split(config, run))
    if processes.from_first(_is_finished(run)):
        if processes.is_first:
            say(f"{run} is finished")
        return run
    return resume(str(run), numbers)


@quiet_lightning()
def train(
    config: DictConfig,
    paper: DictConfig | None = None,
    place: Path | None = None,
    said: Sequence[str] = (),
    watchers: Sequence[pl.Callback] | None = None,
) -> Path:
    """Train, evaluate and report an experiment in a new run folder.

    Args:
        config: the resolved experiment.
        paper: the same experiment at the paper budget, to report what that would cost; None to omit this.
        place: the run folder, if it was chosen beforehand; there must be nothing.
        said: the user's words, of which those about processes must agree with the program that started them.
        watchers: given, though empty, the experiment is only tried: these callbacks see it train, and no test case is
            looked at; `resume` without them does what is left.

    Returns:
        The run folder.

    Raises:
        UserError: the data cannot be read or are too few, `start_from` does not fit, the folder cannot be written, or
            the processes are not those that the experiment asks for.

    Examples:
        >>> train(configuration.load("ganomaly_headct", ["budget=smoke"]))  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-smoke-twin-1a2b')
    """
    with Interruption().listening() as interruption, together() as processes, contextlib.ExitStack() as held:
        refuse_accelerator(config.trainer.accelerator)
        trainer = processes.start(config.trainer, said)
        if place and processes.is_first:
            run_folder.refuse_taken(place)
        data, detector = construct(config)
        refuse_reference(_evaluation(config), detector)
        pretrained = detector.load_pretrained()
        start = WarmStart.open(config.start_from, config.start_phase) if config.start_from else None
        if start:
            start.apply_to(detector)
        _set_up(
            data, processes, detector.schedule
        )  # before the run folder is created, so that unusable data leave nothing behind
        callbacks = [*_callbacks(config, data, detector), *(watchers or ())]
        refuse_rule(_score_rule(config), data, detector)
        run, facts = place or Path(), dict[str, Any]()
        if processes.is_first:
            facts = provenance(config, data, detector, pretrained, start.record() if start else None)
            facts["precision"] = str(precision_for(config.trainer.precision))
            if paper is not None:
                facts["paper"] = published(paper)
            marks = (config.budget, *(["twin"] if data.source == "twin" else []))
            run = place or run_folder.new_place(config.runs, config.name, marks)
            _make_run_folder(_Work(config, run, facts, data, detector, callbacks), start)
            announce(run, facts, data.where_to_get)
            held.enter_context(run_folder.locked(run))
        run, facts = processes.from_first((run, facts))
        work = _Work(config, run, facts, data, detector, callbacks, judged=watchers is None)
        return _fit_and_evaluate(work, trainer, processes, None, interruption)


def _callbacks(config: DictConfig, data: PatchDataModule, detector: Detector) -> list[pl.Callback]:
    """Build the callbacks of an experiment; one that cannot take part in it says so."""
    callbacks: list[pl.Callback] = [configuration.build(node) for node in config.callbacks.values()]
    for callback in callbacks:
        if isinstance(callback, RunCallback):
            callback.refuse(data, detector)
    return callbacks


def _set_up(data: PatchDataModule, processes: Processes, to_train: Schedule | None) -> None:
    """Open the store on every machine, which the first process on it builds if there is none.

    Args:
        data: the data set.
        processes: all that work on the run.
        to_train: the phases whose training images have to be there; None if nothing is left to be trained.
    """
    processes.wait()  # an error in what came before is told before a long building

    def set_up() -> None:
        data.prepare_data()
        data.setup()
        if to_train:
            data.check_trainable(to_train, processes.size)

    processes.in_turn(set_up)
    processes.refuse_differences(f"the content of {data.folder}", (data.source, data.store.fingerprint))


def _make_run_folder(new: _Work, start: WarmStart | None) -> None:
    """Make the run folder with all that resuming needs; its name is added to the facts."""
    split = new.data.record()
    if start:
        identity.refuse_tested_training(start, split, new.data)
        new.facts["detector"]["caveats"] += identity.caveats_of_start(start, split, new.data)
    with run_folder.create(new.run) as work:
        new.facts["run"] = new.run.name
        run_folder.write_atomic(work / "config.yaml", configuration.show(new.config))
        run_folder.write_json(work / "provenance.json", new.facts)
        run_folder.write_atomic(work / SPLIT, split.to_csv())
        if start:
            start.link_into(work, with_checkpoint=new.detector.finished)


def inspect(config: DictConfig, verify: bool = False) -> Path:
    """Build or reuse the store of an experiment, print its content and write its data sheet.

    Args:
        config: the resolved experiment, with or without a detector.
        verify: compare the whole store with the hashes that were written when it was built.

    Returns:
        The data sheet.

    Raises:
        UserError: the data cannot be split; the data sheet, which says why, is written before.

    Examples:
        >>> inspect(configuration.load_data("headct"))  # doctest: +SKIP
        PosixPath('runs/headct/data/datasheet.html')
    """
    _refuse_several("data")
    data: PatchDataModule = configuration.build(config.data)
    announce_source(data.source, data.where_to_get)
    if data.source == "real":
        say(f"real files: {data.folder}")
    began = time.perf_counter()
    data.setup("inspect")
    say(f"store: {inspection.origin(data, time.perf_counter() - began)}")
    if verify:
        say(f"verified: {inspection.verified(data)}")
    facts = data.facts()
    announce_data(facts)
    page = inspection.inspect(Path(config.runs) / config.name / "data", config.name, data, facts)
    say(f"manifest: {page.with_name('manifest.csv')}")
    say(f"data sheet: {page}")
    if data.unsplit:
        raise UserError(f"nothing can be trained on {config.name} yet: it could not be split; {page} says why")
    return page


def _is_another_start(run: Path, recorded: str | None, asked: str | None) -> bool:
    """Return whether a run began with another run than is asked for, which may have been moved since."""
    if not recorded or not asked:
        return bool(recorded) != bool(asked)
    begun = record.read_provenance(run).get("started_from", {}).get("id")
    if begun and (facts := record.read_provenance(Path(asked))):
        return bool(facts.get("id") != begun)
    return Path(asked).parts[-2:] != Path(recorded).parts[-2:]


@quiet_lightning()
def resume(
    path: str,
    overrides: Sequence[str] = (),
    asked: DataAsked = AS_RECORDED,
    watchers: Sequence[pl.Callback] | None = None,
) -> Path:
    """Continue a run from its newest intact checkpoint; the result equals that of an uninterrupted run.

    Whatever is missing of a run is made, be it iterations, scores, metrics or the report.

    Args:
        path: the run folder.
        overrides: `key=value` words, of the keys in RESUME alone.
        asked: where the run's data lie now, and whether changes of them are accepted.
        watchers: as for `train`.

    Returns:
        The run folder.

    Raises:
        UserError: the run does not exist, is finished or is in use by another process, or its data have changed.

    Examples:
        >>> resume("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-laptop-1a2b')
    """
    with Interruption().listening() as interruption, together() as processes, contextlib.ExitStack() as held:
        run = run_folder.open_run(path)
        config = configuration.recall(run / "config.yaml", overrides, RESUME)
        _refuse_other_callbacks(configuration.recall(run / "config.yaml"), config)
        _refuse_finished(run)
        refuse_accelerator(config.trainer.accelerator)
        trainer = processes.start(config.trainer, overrides)
        if processes.is_first:
            held.enter_context(run_folder.locked(run))
            _refuse_finished(run)  # now that no other process can finish it
        processes.wait()
        facts = record.read_provenance(run, needs=("data",))
        torch.set_num_threads(facts.get("threads", torch.get_num_threads()))
        checkpoint = checkpoint_files.newest(run)
        identity.point_at_data(config, run, facts, asked)
        data, detector = construct(config)
        identity.pin_split(data, run, asked)
        if checkpoint is None:
            detector.load_pretrained()
            if config.start_from:
                WarmStart.open(config.start_from, config.start_phase).apply_to(detector)
        left = checkpoint is None or int(checkpoint.name.partition("-")[0]) < detector.schedule.iterations
        _set_up(data, processes, detector.schedule if left else None)
        callbacks = [*_callbacks(config, data, detector), *(watchers or ())]
        work = _Work(config, run, facts, data, detector, callbacks, overrides, watchers is None)
        another_number = _of_another_number(work, processes.size, checkpoint)
        if processes.is_first:
            run_folder.remove_partial_files(run)
            identity.check_fingerprint(data, run, facts, asked)
            identity.note_data(run, data, "resume", asked)
            say(f"resuming {run} from {'the beginning (no checkpoint yet)' if checkpoint is None else checkpoint.name}")
            entry = {"at": run_folder.now(), "from": checkpoint and checkpoint.name, "overrides": list(overrides)}
            run_folder.update_provenance(run, resumed=[*facts.get("resumed", []), entry])
            other_code = _note_other_code(work, checkpoint) if left else None
            told = facts.get("detector") or {}  # a record of older versions may lack it
            before = told.get("caveats", [])
            caveats = [*before, *(c for c in (another_number, other_code) if c and c not in before)]
            if caveats != before:
                run_folder.update_provenance(run, detector=told | {"caveats": caveats})
        processes.wait()
        if checkpoint is not None and _beginning(config, detector) == detector.schedule.iterations:
            load_weights(run, detector, checkpoint.name)  # it trains nothing: the epochs in the file are another run's
            checkpoint = None
        return _fit_and_evaluate(work, trainer, processes, checkpoint, interruption)


@quiet_lightning()
def evaluate(
    path: str, overrides: Sequence[str] = (), asked: DataAsked = AS_RECORDED, checkpoint: str | None = None
) -> Path:
    """Score and evaluate a trained run again in one process; needs the run folder and, unless recorded, the data.

    Args:
        path: the run folder.
        overrides: `key=value` words, of the keys in EVALUATE alone; those of `evaluation` and `score` are kept in the
            run's configuration, since its metrics are theirs from then on. Besides, `scores=recorded` evaluates
            scores.csv as it stands, without data and checkpoint.
        asked: where the run's data lie now, and whether changes of them are accepted.
        checkpoint: name of a checkpoint other than the run's last, or how it begins; the report then says so.

    Returns:
        The report.

    Raises:
        UserError: the run does not exist, is not trained or is in use by another process, or its data have changed.

    Examples:
        >>> evaluate("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-laptop-1a2b/report.html')
    """
    return _evaluated(path, overrides, asked, checkpoint, _reported)


def _evaluated(
    path: str, overrides: Sequence[str], asked: DataAsked, checkpoint: str | None, report: Callable[[Path], Path]
) -> Path:
    """Evaluate a run again and let `report` write its report."""
    _refuse_several("evaluate")
    source, overrides = source_of(overrides)
    run = run_folder.open_run(path)
    config = configuration.recall(run / "config.yaml", overrides, EVALUATE)
    with Interruption().listening(), run_folder.locked(run):
        before = figures_of(run)
        if source == "recorded":
            if checkpoint or asked != AS_RECORDED:
                raise UserError("scores=recorded asks neither data nor a checkpoint; leave out what names them")
            run_folder.remove_partial_files(run)
            stored = configuration.recall(run / "config.yaml")
            if stored.score != config.score:
                raise UserError("score: the recorded scores are of other settings; leave out scores=recorded")
            settings = _evaluation(stored)
            refuse_unrecorded(run, settings, _evaluation(config))
            _mark_stale(run)  # for good: the baselines are as they were recorded
            evaluate_recorded(run, settings, _evaluation(config))
            _note_evaluation(run, config, overrides, before)
            return report(run)
        settle_rule(config.score, overrides)
        data, detector, weights = _trained(run, config, asked, checkpoint)
        refuse_rule(_score_rule(config), data, detector)
        refuse_reference(_evaluation(config), detector)
        run_folder.remove_partial_files(run)
        with Meter("scoring", "batch") as meter:
            device = device_for(config.trainer.accelerator)
            score_by(_score_rule(config), data, detector, device)
            scored = score_all(data, detector, device=device, progress=meter.show)
        assert scored is not None, "a single process scores all cases"
        _mark_stale(run)  # until scores, metrics and configuration agree again
        evaluate_run(run, _evaluation(config), data, detector, scored)
        identity.note_data(run, data, "evaluate", asked)
        _note_evaluation(run, config, overrides, before, weights)
        return report(run)


@quiet_lightning()
def evaluate_all(
    path: str, overrides: Sequence[str] = (), asked: DataAsked = AS_RECORDED, checkpoint: str | None = None
) -> bool:
    """Evaluate every run below a folder, as `evaluate` does; one that fails does not stop the others.

    Args:
        path: the folder.
        overrides: as for `evaluate`, for every run.
        asked: as for `evaluate`.
        checkpoint: must be None: a checkpoint is one run's.

    Returns:
        Whether none has failed.

    Raises:
        UserError: a checkpoint is named.

    Examples:
        >>> evaluate_all("runs", ["scores=recorded", "evaluation.purpose=screening"])  # doctest: +SKIP
        True
    """
    _refuse_several("evaluate")
    if checkpoint:
        raise UserError(f"{path} has several runs, and a checkpoint is one run's; name that run's folder")
    quiet = source_of(overrides)[0] == "recorded"  # scoring has a bar of its own, and a terminal shows one

    def one(run: Path) -> None:
        _evaluated(str(run), overrides, asked, None, _pages)

    judged = evaluate_each(Path(path), runs_below(Path(path)), one, quiet)
    return not any(each.error for each in judged)


@quiet_lightning()
def rank_scores(
    path: str,
    rules: Mapping[str, ScoreRule] = RULES,
    planting: Planting = Planting(),
    asked: DataAsked = AS_RECORDED,
) -> list[Ranked]:
    """Rank rules for a trained run's score by lesions planted on its validation normals; nothing of it is changed.

    Args:
        path: the run folder.
        rules: the rules by name, as the section `score` has them.
        planting: what is planted; kinds of HELD_BACK check a choice, once.
        asked: where the run's data lie now, and whether changes of them are accepted.

    Returns:
        The rules, best first.

    Raises:
        UserError: as `evaluate`, or the detector has no map, or none with a sign; leave those rules out.

    Examples:
        >>> rank_scores("runs/ganomaly_headct/20260101-120000-laptop-1a2b")[0].name  # doctest: +SKIP
        'bright, by place'
    """
    _refuse_several("rank_scores")
    run = run_folder.open_run(path)
    config = configuration.recall(run / "config.yaml")
    data, detector, _ = _trained(run, config, asked)
    normals = list(data.images("val", planting.at_most))
    if not normals:
        raise UserError(f"{run}: it has no validation normals to plant lesions on; set data.split.val_fraction")
    detector.to(device := device_for(config.trainer.accelerator))
    trial = Trial(torch.cat(normals).to(device), planting.seeds, planting.kinds)
    return rank(rules, detector.score, trial, [images.to(device) for images in data.images("train", MAX_NORMALS)])


def _trained(
    run: Path, config: DictConfig, asked: DataAsked, checkpoint: str | None = None
) -> tuple[PatchDataModule, Detector, Path]:
    """Return a trained run's data, set up with the recorded split, its detector, and the file of the weights."""
    facts = record.read_provenance(run, needs=("code", "data"))
    identity.point_at_data(config, run, facts, asked)
    data, detector = construct(config)
    identity.pin_split(data, run, asked)
    weights = load_weights(run, detector, checkpoint)
    data.prepare_data()
    data.setup()
    identity.check_fingerprint(data, run, facts, asked)
    return data, detector, weights


@quiet_lightning()
def quality(path: str, words: Sequence[str] = (), asked: DataAsked = AS_RECORDED) -> Path:
    """Measure the images that a trained run draws and reconstructs; write quality.json and the report.

    Args:
        path: the run folder.
        words: `key=value` words: settings of `quality.Words`, and keys in LOADING and trainer.accelerator.
        asked: where the run's data lie now, and whether changes of them are accepted.

    Returns:
        The report.

    Raises:
        UserError: the run does not exist, is not trained or is in use by another process; its data have changed; its
            detector neither draws nor reconstructs images; or the weights of the classifier are missing.

    Examples:
        >>> quality("runs/fanogan_headct/20260101-120000-laptop-1a2b", ["samples=500"])  # doctest: +SKIP
        PosixPath('runs/fanogan_headct/20260101-120000-laptop-1a2b/report.html')
    """
    _refuse_several("quality")
    run = run_folder.open_run(path)
    own, overrides = own_settings(Words, words)
    config = configuration.recall(run / "config.yaml", overrides, QUALITY)
    with Interruption().listening(), run_folder.locked(run):
        network = own.network()
        data, detector, weights = _trained(run, config, asked)
        device = device_for(config.trainer.accelerator)
        found = measured(data, detector.to(device), own, network.to(device), config.seed)
        facts = {"measured": run_folder.now(), "checkpoint": weights.name, "seed": config.seed}
        run_folder.write_json(run / QUALITY_FILE, facts | {"changes": str(data.changes) or None} | found)
        return _reported(run)


def report(path: str) -> Path:
    """Write a run's report again from the files in its folder.

    Args:
        path: the run folder.

    Returns:
        The report.

    Examples:
        >>> report("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-laptop-1a2b/report.html')
    """
    _refuse_several("report")
    return _reported(run_folder.open_run(path))


def card(path: str) -> tuple[Path, Path]:
    """Write the model card of a run and its checklist for papers, from the run folder alone.

    Args:
        path: the run folder.

    Returns:
        model_card.md and claim.md.

    Raises:
        UserError: `path` is not a run folder, or one of its files cannot be read.

    Examples:
        >>> card("runs/ganomaly_headct/20260101-120000-laptop-1a2b")[1].name  # doctest: +SKIP
        'claim.md'
    """
    _refuse_several("card")
    run = run_folder.open_run(path)
    written = write_cards(run)
    say(f"model card: {written[0]}; checklist: {written[1]}")
    return written


def predict(path: str, request: Request, overrides: Sequence[str] = ()) -> Predicted:
    """Score pictures and volumes with a trained run; write scores.csv, anomaly maps and index.html.

    Args:
        path: the run folder.
        request: the files and the folder for the results. If this holds what the same command has left unfinished, it
            goes on there.
        overrides: `key=value` words, of the keys in `scorer.SETTINGS` alone.

    Returns:
        The folder with the results, and a finding for each file.

    Raises:
        UserError: the run is not trained, there is nothing to score, no file could be scored, or the folder for the
            results holds something else.

    Examples:
        >>> predict("runs/ganomaly_headct/20260101-120000-smoke-1a2b", Request(Path("new"))).folder  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-smoke-1a2b/predictions/new-20260102-080000')
    """
    _refuse_several("predict")
    run = run_folder.open_run(path)
    scorer = Scorer.open(run, overrides)
    record = read_run(run)
    found = new_files(scorer.data, request)
    if found.left_out:
        name, reason = next(iter(found.left_out.items()))
        say(f"left out: {counted(len(found.left_out))}, such as {name} ({reason}); {LEFT_OUT} lists them")
    facts = record.provenance
    identity_of_run = {
        "name": record.name,
        "id": facts.get("id") or run.resolve().name,
        "checkpoint": checkpoint_files.final(run, facts).name,
        "threshold": scorer.threshold,
    }
    place = place_for(run, request.inputs, request.out)
    with Interruption().listening():
        try:
            with opened(place, asked(identity_of_run, scorer, request, found.cases), request.overwrite) as folder:
                if folder.done:
                    say(f"going on in {place} after {folder.done} of {counted(len(found.cases))}")
                scoring = Scoring(record.name, facts, record.metrics, len(scorer.normals), record.log)
                scoring = scoring._replace(normal_scores=scorer.normals.tolist())
                predicted = predict_files(scorer, found, folder, scoring, request.anyway)
        except Stopped as stopped:
            name = signal.Signals(stopped.signal).name
            say(f"stopped by {name}; to go on give the same command with --out {place} (OUT={place})")
            raise
    _tell(predicted)
    return predicted


def _tell(predicted: Predicted) -> None:
    """Print where the result of a prediction lies and what is missing of it."""
    lacking, table = predicted.not_scored, predicted.folder / "scores.csv"
    if len(lacking) == len(predicted.findings):
        raise UserError(
            f"nothing could be scored of {counted(len(lacking))}; {table} says why, such as {lacking[0].id}: "
            f"{lacking[0].reason}"
        )
    for finding in lacking[:MAX_NAMED]:
        warn(f"not scored: {finding.id}: {finding.reason}")
    if len(lacking) > MAX_NAMED:
        warn(f"and {len(lacking) - MAX_NAMED} more were not scored; {table} says why")
    say(f"scores and maps: {predicted.folder}; page: {predicted.folder / 'index.html'}")


def _refuse_other_callbacks(stored: DictConfig, config: DictConfig) -> None:
    """Refuse changes of callbacks that could change the scores of a run that has begun."""
    for name in {*stored.callbacks, *config.callbacks}:
        before, now = stored.callbacks.get(name), config.callbacks.get(name)
        if before != now and any(changes_scores(locate(node[TARGET])) for node in (before, now) if node):
            raise UserError(f"callbacks.{name}: may change the run's scores, so it must stay as it was; train anew")


@dataclass(frozen=True)
class _Work:
    """A run that is being trained.

    Attributes:
        config: the resolved experiment.
        run: the run folder.
        facts: its provenance.
        data: its data set, set up.
        detector: as it begins.
        callbacks: those of its configuration, and the watchers.
        overrides: what was said otherwise when going on with it.
        judged: whether it is scored and evaluated in the end.
    """

    config: DictConfig
    run: Path
    facts: dict[str, Any]
    data: PatchDataModule
    detector: Detector
    callbacks: Sequence[pl.Callback]
    overrides: Sequence[str] = ()
    judged: bool = True


def _fit_and_evaluate(
    work: _Work, settings: DictConfig, processes: Processes, checkpoint: Path | None, interruption: Interruption
) -> Path:
    """Train what is left, from a checkpoint or from the beginning, then score, evaluate and report.

    Args:
        work: the run.
        settings: the section `trainer` with the numbers of processes as they are.
        processes: the processes, of which the first one writes the run folder.
        checkpoint: what the training goes on from; None for the beginning.
        interruption: listens to signals.
    """
    config, run, data, detector = work.config, work.run, work.data, work.detector
    if config.trainer.precision == "bf16-mixed" and emulates_bfloat16() and processes.is_first:
        say("trainer.precision=bf16-mixed: this processor only emulates bfloat16, training in float32 instead")
    trainer = trainer_for(
        settings,
        run,
        [*decisive_callbacks(config.seed), *work.callbacks, interruption],
        detector.schedule.epochs_left(_beginning(config, detector), data.epoch_length),
        plugins=[
            CheckpointFiles(work.facts.get("id"), checkpoint_files.run_ids(work.facts)),
            launchers.environment(),
        ],
    )
    try:
        if processes.is_first:
            run_folder.update_provenance(run, world_size=trainer.world_size)
        with _restoring(checkpoint, interruption):
            trainer.fit(detector, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if not work.judged:
            processes.wait()
            return run
        began = time.perf_counter()
        with Meter("scoring", "batch", silent=not processes.is_first) as meter:
            score_by(_score_rule(config), data, detector, trainer.strategy.root_device)
            scored = score_all(data, detector, work.callbacks, trainer.strategy.root_device, meter.show)
        if scored is not None:
            run_folder.update_provenance(run, scoring_seconds=time.perf_counter() - began, peak_gb=peak_memory())
            callbacks = [callback for callback in work.callbacks if isinstance(callback, RunCallback)]
            for callback in callbacks:
                callback.on_scored(run, data, detector, scored)
            evaluate_run(run, _evaluation(config), data, detector, scored)
            _conclude(run, detector, callbacks)
        processes.wait()
    except Stopped as stopped:
        if processes.is_first:
            name, done = signal.Signals(stopped.signal).name, detector.iterations_done
            total = detector.schedule.iterations
            say(f"stopped by {name} after iteration {done} of {total}; continue with: make resume RUN={run}")
        raise
    except RuntimeError as error:
        if not is_of_another(error):
            raise
        raise UserError(f"{ENDED}; continue with: make resume RUN={run}") from error
    return run


def _of_another_number(work: _Work, world_size: int, checkpoint: Path | None) -> str | None:
    """Return a caveat if a run goes on under a number of processes that changes what is trained, and that was asked.

    Noise, batches, gradients and batch-norm statistics are those of the global batch under any number of processes.
    But another loss that couples the images of a mini-batch sees a process's share of it alone.

    Raises:
        UserError: it was not asked.
    """
    before = work.facts.get("world_size", world_size)
    if checkpoint is None or before == world_size or not work.detector.couples_batch:
        return None
    why = (
        f"{type(work.detector).__name__} couples the images of a mini-batch, by a spread over them or by batch norm of "
        f"parts of it, and {before} processes part it otherwise than {world_size}"
    )
    if not any(word.startswith(("trainer.devices=", "trainer.num_nodes=")) for word in work.overrides):
        raise UserError(
            f"{work.run}: {why}; resume it with trainer.devices={before}, or say trainer.devices={world_size} to go on "
            "all the same, which the report will say"
        )
    return f"The training was resumed under another number of processes: {why}."


def _note_other_code(work: _Work, checkpoint: Path | None) -> str | None:
    """Record the code that a training goes on with; return a caveat if it began with other code.

    Two fingerprints are no other run's, so no study takes the run for one of either code.
    """
    before = work.facts.get("code")
    if not isinstance(before, dict):  # of older versions
        return None
    recorded = configuration.recall(work.run / "config.yaml")  # other callbacks may be asked for now
    begun, now = str(before["training"]), fingerprint.of_code(_plain(recorded))["training"]
    if begun.split(" ")[-1] == now:
        return None
    all_of_it = now if checkpoint is None else f"{begun} {now}"
    run_folder.update_provenance(work.run, code=before | {"training": all_of_it})
    if checkpoint is None:  # it is trained from the beginning
        return None
    say("the code has changed since this run was begun; its report says so. To train with one: make train")
    return OF_OTHER_CODE


@contextlib.contextmanager
def _restoring(checkpoint: Path | None, interruption: Interruption) -> Iterator[None]:
    """Blame the checkpoint, if there is one, for an error before the training begins."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if checkpoint is None or interruption.begun or is_of_another(error):
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{checkpoint} does not hold what this training needs ({type(error).__name__}: {reason}); delete it to go "
            "on from the previous checkpoint"
        ) from error


def _conclude(run: Path, detector: Detector, callbacks: list[RunCallback]) -> None:
    """Complete the record of an evaluated run and write its report; that it is finished is written last."""
    chosen = (callback.checkpoint_choice() for callback in callbacks)
    choice = next(filter(None, chosen), {"rule": "last", "iteration": detector.iterations_done})
    files = checkpoint_files.by_age(run / "checkpoints")
    threads = torch.get_num_threads()  # Lightning divides the cores among processes; `evaluate` needs the same number
    file = {"file": files[0].name} if files else {}
    run_folder.update_provenance(run, checkpoint={**choice, **file}, threads=threads, evaluating=None)
    finished = run_folder.now()
    _reported(run, finished)
    for callback in callbacks:
        callback.on_run_end(run)
    run_folder.update_provenance(run, finished=finished)


def _reported(run: Path, finished: str | None = None) -> Path:
    """Write a run's report and print its path.

    Args:
        run: its folder.
        finished: when it was finished, if its record is still to say so.
    """
    announce_result(record.read_metrics(run))
    page = _pages(run, finished)
    console.print(f"report: {page}")
    return page


def _pages(run: Path, finished: str | None = None) -> Path:
    """Write a run's report, and its cards if there are any."""
    page = write_report(run, finished)
    for card in renew_cards(run, finished):
        warn(f"{card}, edited or by an older version, is of the run as it was; make card RUN={run} writes it anew")
    return page


def _mark_stale(run: Path) -> None:
    """Record that no code's evaluation stands in the run folder."""
    before = record.read_provenance(run).get("code", "")
    training = before["training"] if isinstance(before, dict) else before
    run_folder.update_provenance(run, code={"training": training, "evaluation": ""})


def _note_evaluation(
    run: Path,
    config: DictConfig,
    overrides: Sequence[str],
    figures: Mapping[str, float | None],
    weights: Path | None = None,
) -> None:
    """Record what a run was evaluated with: settings and their caveat, figures before, checkpoint, fingerprint of code.

    Without weights, its recorded scores were evaluated: the code that made these is not known to be the present one.
    """
    facts = record.read_provenance(run)
    stored = configuration.recall(run / "config.yaml")
    changed = {
        f"{above}{key}": {"from": stored[section][key], "to": config[section][key]}
        for section, above in (("evaluation", ""), ("score", "score."))
        for key in config[section]
        if stored[section][key] != config[section][key]
    }
    if changed:
        stored.evaluation, stored.score = config.evaluation, config.score
        run_folder.write_atomic(run / "config.yaml", configuration.show(stored))
    told = facts.get("detector") or {}
    caveats = evaluated_by(config.evaluation.threshold, told.get("caveats", []))
    if caveats != told.get("caveats", []):
        run_folder.update_provenance(run, detector=told | {"caveats": caveats})
    entry = {"at": run_folder.now(), "overrides": list(overrides), "changed": changed, "before": dict(figures)}
    if weights is None:
        entry["scores"] = "recorded"
        run_folder.update_provenance(run, evaluated=[*facts.get("evaluated", []), entry], evaluating=None)
        return
    choice = facts.get("checkpoint") or {"rule": "last", "iteration": int(weights.name.partition("-")[0])}
    if weights.name != choice.get("file", weights.name):
        before = choice.get("instead_of", choice)
        asked = {"rule": "asked for", "iteration": int(weights.name.partition("-")[0]), "instead_of": before}
        choice = before if weights.name == before["file"] else asked
    plain = _plain(stored)
    entry["checkpoint"] = weights.name
    kept = {"checkpoint": {**choice, "file": weights.name}} if facts.get("finished") else {}
    run_folder.update_provenance(
        run,
        **kept,
        evaluating=None,
        evaluated=[*facts.get("evaluated", []), entry],
        code=facts["code"] | {"evaluation": fingerprint.of_code(plain)["evaluation"]},
    )


def _refuse_finished(run: Path) -> None:
    if _is_finished(run):
        raise UserError(f"{run} is finished, there is nothing to resume; to evaluate it again: make evaluate RUN={run}")


def _is_finished(run: Path) -> bool:
    """Return whether nothing is left to be made of a run."""
    return bool(run_folder.read_json(run / "provenance.json").get("finished")) and (run / "report.html").exists()


def _plain(config: DictConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(config))


def _evaluation(config: DictConfig) -> Evaluation:
    settings: Any = OmegaConf.to_object(config.evaluation)
    assert isinstance(settings, Evaluation)
    return settings


def _score_rule(config: DictConfig) -> ScoreRule:
    rule: Any = OmegaConf.to_object(config.score)
    assert isinstance(rule, ScoreRule)
    return rule


def _beginning(config: DictConfig, detector: Detector) -> int:
    """Return the number of iterations that were done before the run's first epoch, by a warm start."""
    return detector.schedule.span(config.start_phase).stop if config.start_from else 0


def _refuse_several(command: str) -> None:
    """Refuse to do one process's work in several ones."""
    if launch := launchers.launched():
        if launch.rank:
            raise FailedElsewhereError(2)
        raise UserError(f"{command} is the work of one process, but {launch.program} started {launch.size}; start one")
