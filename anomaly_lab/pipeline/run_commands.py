"""The commands for a run that has been trained: evaluate it again, rank rules for its score, report, predict."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from anomaly_lab.callbacks.interruption import Interruption
from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.map_score import MAX_NORMALS
from anomaly_lab.evaluation.planted import RULES, Planting, Ranked, Trial, rank
from anomaly_lab.experiment import checkpoint_files, fingerprint, record, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.experiment.quality import FILE as QUALITY_FILE
from anomaly_lab.experiment.words import own_settings
from anomaly_lab.pipeline import identity, launchers
from anomaly_lab.pipeline.console import (
    announce_result,
    console,
    quiet_lightning,
    say,
    warn,
)
from anomaly_lab.pipeline.evaluate import evaluate_run, refuse_reference
from anomaly_lab.pipeline.identity import AS_RECORDED, DataAsked
from anomaly_lab.pipeline.predict import LEFT_OUT, Predicted, Request, asked, counted, new_files, predict_files
from anomaly_lab.pipeline.prediction_folder import opened, place_for
from anomaly_lab.pipeline.processes import refuse_others
from anomaly_lab.pipeline.provenance import evaluated_by
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
    device_for,
    refuse_rule,
    score_all,
    score_by,
    settle_rule,
)
from anomaly_lab.reports.cards import renew_cards, write_cards
from anomaly_lab.reports.prediction_page import Scoring
from anomaly_lab.reports.record import read_run
from anomaly_lab.reports.run_report import write_report
from anomaly_lab.types import FailedElsewhereError, Stopped, UserError

MAX_NAMED = 5  # files that were not scored and are named on the console
LOADING = tuple(f"data.store.{name}" for name in ("folder", "num_workers", "scoring_batch_size", "on_bad"))
EVALUATE = ("evaluation", "score", "trainer.accelerator", *LOADING)  # what may be said otherwise of a run that exists
QUALITY = ("trainer.accelerator", *LOADING)


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
    return _evaluated(path, overrides, asked, checkpoint, reported)


def _evaluated(
    path: str, overrides: Sequence[str], asked: DataAsked, checkpoint: str | None, report: Callable[[Path], Path]
) -> Path:
    """Evaluate a run again and let `report` write its report."""
    refuse_several("evaluate")
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
            settings = configuration.evaluation_of(stored)
            refuse_unrecorded(run, settings, configuration.evaluation_of(config))
            _mark_stale(run)  # for good: the baselines are as they were recorded
            evaluate_recorded(run, settings, configuration.evaluation_of(config))
            _note_evaluation(run, config, overrides, before)
            return report(run)
        settle_rule(config.score, overrides)
        data, detector, weights = _trained(run, config, asked, checkpoint)
        refuse_rule(configuration.score_rule_of(config), data, detector)
        refuse_reference(configuration.evaluation_of(config), detector)
        run_folder.remove_partial_files(run)
        with Meter("scoring", "batch") as meter:
            device = device_for(config.trainer.accelerator)
            score_by(configuration.score_rule_of(config), data, detector, device)
            scored = score_all(data, detector, device=device, progress=meter.show)
        assert scored is not None, "a single process scores all cases"
        _mark_stale(run)  # until scores, metrics and configuration agree again
        evaluate_run(run, configuration.evaluation_of(config), data, detector, scored)
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
    refuse_several("evaluate")
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
    refuse_several("rank_scores")
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
    refuse_several("quality")
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
        return reported(run)


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
    refuse_several("report")
    return reported(run_folder.open_run(path))


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
    refuse_several("card")
    run = run_folder.open_run(path)
    kept = {*run.glob("*.edited*.md")}
    written = write_cards(run)
    for edited in sorted({*run.glob("*.edited*.md")} - kept):
        say(f"what somebody had edited is kept: {edited}")
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
    refuse_several("predict")
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


def reported(run: Path, finished: str | None = None) -> Path:
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
    plain = configuration.plain(stored)
    entry["checkpoint"] = weights.name
    kept = {"checkpoint": {**choice, "file": weights.name}} if facts.get("finished") else {}
    run_folder.update_provenance(
        run,
        **kept,
        evaluating=None,
        evaluated=[*facts.get("evaluated", []), entry],
        code=facts["code"] | {"evaluation": fingerprint.of_code(plain)["evaluation"]},
    )


def refuse_several(command: str) -> None:
    """Refuse to do one process's work in several ones."""
    if launch := launchers.launched():
        if launch.rank:
            raise FailedElsewhereError(2)
        raise UserError(f"{command} is the work of one process, but {launch.program} started {launch.size}; start one")
    refuse_others(command)
