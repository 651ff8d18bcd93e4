"""Evaluate a run's scores: threshold, metrics with confidence intervals, baselines, pixel metrics and galleries."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.fitted import MAX_IMAGES, Baselines
from anomaly_lab.evaluation.classes import FILE, ClassTable, Supervision, called_classes, evaluate_classes
from anomaly_lab.evaluation.crossfit import Score, cross_fitted
from anomaly_lab.evaluation.decisions import decisions_in_use
from anomaly_lab.evaluation.map_score import MAX_NORMALS, MapScore
from anomaly_lab.evaluation.planted import Trial, found_by
from anomaly_lab.evaluation.protocol import evaluate_maps, evaluate_scores, without_nan
from anomaly_lab.evaluation.scores import TERM, Scores
from anomaly_lab.evaluation.scoring import score_batches
from anomaly_lab.experiment import run_folder
from anomaly_lab.experiment.config import Evaluation, ScoreRule
from anomaly_lab.metrics.boxes import localise
from anomaly_lab.metrics.segmentation import pointing
from anomaly_lab.pipeline.alike import note_likeness
from anomaly_lab.pipeline.console import warn
from anomaly_lab.pipeline.sheets import write_sheets
from anomaly_lab.pipeline.shortcuts import audit_of_run
from anomaly_lab.reports.gallery import FIXED_CASES, MISSED
from anomaly_lab.types import Batch, Prediction, UserError

GALLERY_CASES = 6  # cases for each of TP, FP, TN and FN in the report's galleries
PLANTED_NORMALS, PLANTED_SEEDS = 50, range(2)  # lesions of each kind are planted on so many normals, so often
READ_IMAGES = 256  # images that are read at once
MOST_DESCRIBED = 5000  # images to score up to which features are computed by themselves: some minutes on one core
MOST_MISSED = 400  # missed cases of which small pictures are kept
MISSED_SIDE = 256  # pixels per side of these, at most
CLASS_CASES = 3  # cases of each class that are found, missed and mistaken for it


def evaluate_run(
    run: Path,
    evaluation: Evaluation,
    data: PatchDataModule,
    detector: Detector,
    scored: dict[str, np.ndarray],
) -> None:
    """Write scores.csv, metrics.json, pictures and sheets below samples/, and classes.csv of a run with classes.

    Args:
        run: the run folder.
        evaluation: rule and purpose of the threshold, bootstrap replicates, patches or cases.
        data: the data set, set up.
        detector: the trained detector, which computes reconstructions and maps for the galleries.
        scored: result of `training.score_all`, with every validation and test case once.

    Examples:
        >>> evaluate_run(run, Evaluation(), data, detector, score_all(data, detector))  # doctest: +SKIP
    """
    splits = data.scored
    rows = np.concatenate(list(splits.values()))
    place = np.searchsorted(scored["row"], rows)
    terms = scored["components"][place].T if "components" in scored else ()
    batches = (batch for split in splits for batch in data.images(split))
    fitted = _fitted(data, evaluation, len(rows))
    baselines = {name: values.numpy() for name, values in fitted.scores(batches).items()} if fitted else {}
    facts = {name: np.array(data.store.index.columns[name])[rows] for name in ("id", "case", "patient")}
    scores = Scores(
        id=facts["id"].tolist(),
        patient=facts["patient"].tolist(),
        split=[split.partition("_")[0] for split, members in splits.items() for _ in members],
        label=data.store.labels[rows],
        score=scored["score"][place],
        baselines=baselines,
        components=dict(zip(detector.terms, terms, strict=True)),
        probabilities=detector.scores_probabilities and detector.rescored is None,
    )
    if evaluation.reference == "crossfit":
        refuse_reference(evaluation, detector)
        others, reference = _cross_fitted(data, detector, _facts(data, evaluation, len(rows)))
        rows, scores = np.concatenate([rows, others]), scores.joined(reference)
        facts = {name: np.array(data.store.index.columns[name])[rows] for name in facts}
    table = _class_table(scores, data, rows, scored["probability"][place]) if "probability" in scored else None
    if evaluation.case_score != "none":
        table = table and table.by_case(facts["case"], scores.label, data.target_type == "multiclass")
        scores, highest = scores.by_case(facts["case"], evaluation.case_score, evaluation.top_k)
        rows = rows[highest]
    metrics = evaluate_scores(scores, evaluation.purpose, evaluation.replicates, rule=evaluation.threshold)
    scored_unit = "patch" if evaluation.case_score == "none" else "case"
    metrics["unit"] = {"scored": scored_unit, "rule": evaluation.case_score, "top_k": evaluation.top_k}
    metrics["pixels"] = _pixels(scored, data, fitted)
    metrics["decisions"] = decisions_in_use(metrics, evaluation.prevalence, evaluation.scans_per_day)
    metrics["shortcuts"] = audit_of_run(data, scores, np.concatenate(list(splits.values())), scored_unit == "case")
    metrics["baseline_notes"] = list(fitted.notes) if fitted else []
    metrics["planted"] = _planted(data, detector, fitted) if evaluation.planted else None
    # until the whole record is of this evaluation: a scorer takes the threshold from one file, the rule from another
    run_folder.update_provenance(run, evaluating="anew")
    places = detector.rescored if isinstance(detector.rescored, MapScore) else MapScore(ScoreRule())
    places.save(run)  # nothing of an earlier rule is left
    run_folder.write_atomic(run / "scores.csv", scores.to_csv(metrics["threshold"]["value"]))
    if table is not None:
        told = Supervision(data.target_type, dict(zip(data.classes, data.class_counts()[:, 0].tolist(), strict=True)))
        threshold = metrics["threshold"]["value"]
        metrics["classes"] = evaluate_classes(table, scores, told, threshold, evaluation.replicates)
        run_folder.write_atomic(run / FILE, table.to_csv())
    run_folder.write_json(run / "metrics.json", metrics)
    if remark := metrics["intervals"]["remark"]:
        warn(remark)
    chosen = _extremes(scores, metrics["threshold"]["value"])
    chosen += [(kind, i) for kind, i in _fixed(scores) if i not in {extreme for _, extreme in chosen}]
    chosen += _of_classes(table, metrics["classes"]) if table is not None else []
    exhibits = [(kind, scores.id[i], int(rows[i])) for kind, i in chosen]
    _write_gallery(run / "samples" / "gallery.npz", exhibits, data, detector)
    missed = [(scores.id[i], int(rows[i])) for i in _missed(scores, metrics["threshold"]["value"])]
    _write_missed(run / "samples" / MISSED, missed, data, scored)
    write_sheets(run / "samples", detector, data.seed)
    note_likeness(run, data)


def _planted(data: PatchDataModule, detector: Detector, fitted: Baselines | None) -> dict[str, Any] | None:
    """Measure what detector and baselines find of lesions planted on validation normals; None without normals."""
    normals = list(data.images("val", PLANTED_NORMALS))
    if not normals:
        warn("evaluation.planted: there are no validation normals to plant lesions on; set data.split.val_fraction")
        return None

    score = _score_of_new(data, detector)

    def scores(image: torch.Tensor) -> dict[str, np.ndarray]:
        own = score({"image": image.to(detector.device)}).anomaly_score.detach().cpu().double().numpy()
        others = fitted.scores([image]) if fitted else {}
        return {"detector": own} | {name: values.numpy() for name, values in others.items()}

    with torch.random.fork_rng():  # a search for a latent code draws numbers
        found = found_by(scores, Trial(torch.cat(normals), PLANTED_SEEDS))
    return {each.name: without_nan({"auroc": each.auroc, "lift": each.lift, "kinds": each.kinds}) for each in found}


def _score_of_new(data: PatchDataModule, detector: Detector) -> Callable[[Batch], Prediction]:
    """Return the detector's score, for validation normals: places are measured on normals that trained, not on them.

    A normal with a planted lesion would be compared with itself, and a plain one with all but itself.
    """
    own = detector.rescored
    if not isinstance(own, MapScore) or not own.rule.measures or own.rule.normals != "validation":
        return detector.score

    def without(batch: Batch) -> Prediction:
        detector.rescored = None
        try:
            return detector.score(batch)
        finally:
            detector.rescored = own

    normals = [list(data.images(split, MAX_NORMALS)) for split in ("train", "val")]
    measured = MapScore.fit(own.rule, without, normals[0], detector.device, normals[1])
    return lambda batch: measured(batch["image"], without(batch))


def _fitted(data: PatchDataModule, evaluation: Evaluation, num_scored: int) -> Baselines | None:
    """Fit the baselines to the training normals; None if there are none."""
    if not len(data.rows["train"]):
        return None
    return Baselines.fit(data.images("train", at_most=MAX_IMAGES), _facts(data, evaluation, num_scored))


def _facts(data: PatchDataModule, evaluation: Evaluation, num_scored: int) -> Facts:
    wanted = evaluation.feature_baselines
    return Facts(data.brightness, wanted == "always" or (wanted == "auto" and num_scored <= MOST_DESCRIBED))


def refuse_reference(evaluation: Evaluation, detector: Detector) -> None:
    """Refuse cross-fitting with a detector that takes longer than seconds, or whose features have seen all normals.

    Raises:
        UserError: so it is.
    """
    if evaluation.reference == "crossfit" and not detector.refits:
        raise UserError(
            f"evaluation.reference=crossfit: {type(detector).__name__} cannot be fitted again in seconds for a fold; "
            "use evaluation.reference=validation"
        )


def _cross_fitted(data: PatchDataModule, detector: Detector, about: Facts) -> tuple[np.ndarray, Scores]:
    """Return the training rows, and their scores by fits of detector and baselines without them.

    A fit draws and augments its normals as the training did, so that what it never saw scores as new normals do.
    """
    rows = data.rows["train"]
    if len(rows) > MAX_IMAGES:
        raise UserError(
            f"evaluation.reference=crossfit is for few normals, and there are {len(rows)} training images (at most "
            f"{MAX_IMAGES}); use evaluation.reference=validation"
        )
    facts = {name: np.array(data.store.index.columns[name])[rows].tolist() for name in ("id", "patient")}

    normals = torch.cat(list(data.images("train")))

    def fit(kept: np.ndarray) -> Score:
        images = normals[torch.from_numpy(kept)]
        fitted = detector.refitted(data.first_batches(rows[kept], detector.schedule.iterations))
        baselines = Baselines.fit([images], about)
        if isinstance(detector.rescored, MapScore):
            rule = detector.rescored.rule
            shown = torch.split(images, data.scoring_batch_size) if rule.normals == "training" else data.images("val")
            fitted.rescored = MapScore.fit(rule, fitted.score, shown, detector.device, data.images("val"))

        def score(others: torch.Tensor) -> dict[str, np.ndarray]:
            parts = torch.split(others, data.scoring_batch_size)
            found = [fitted.score({"image": part.to(detector.device)}) for part in parts]
            own = {"": torch.cat([prediction.anomaly_score for prediction in found])}
            if detector.terms:
                terms = torch.cat([value for prediction in found if (value := prediction.components) is not None])
                own |= dict(zip(map(TERM.__add__, detector.terms), terms.unbind(1), strict=True))
            return {name: values.cpu().double().numpy() for name, values in {**own, **baselines.scores(parts)}.items()}

        return score

    with Meter("cross-fitting", "fit") as meter:
        scored = cross_fitted(normals, facts["patient"], fit, meter.show)
    own, terms = scored.pop(""), {name: scored.pop(TERM + name) for name in detector.terms}
    label, split = data.store.labels[rows], ["crossfit"] * len(rows)
    return rows, Scores(**facts, split=split, label=label, score=own, baselines=scored, components=terms)


def _class_table(scores: Scores, data: PatchDataModule, rows: np.ndarray, probability: np.ndarray) -> ClassTable:
    """Return the classes of the scored rows and what the detector says of them."""
    assert data.targets is not None, "a detector with classes has data with classes"
    return ClassTable(scores.id, scores.patient, scores.split, data.classes, data.targets[rows], probability)


def _pixels(scored: dict[str, np.ndarray], data: PatchDataModule, baselines: Baselines | None) -> dict[str, Any] | None:
    """Evaluate the maps of the test cases with known lesions; None if there are none."""
    if "mask" not in scored:
        return None
    known = np.isin(scored["row"], data.rows["test"]) & ~data.store.index.has_role("unmasked")[scored["row"]]
    rows, mask = scored["row"][known], scored["mask"][known]
    if not mask.any():
        return None
    patient = np.array(data.store.index.columns["patient"])[rows]
    measured = {"detector": pointing(scored["anomaly_map"][known], mask, patient)}
    batches = np.array_split(rows, len(rows) // READ_IMAGES + 1)
    parts = [baselines.maps(data.store.batch(part)["image"]) for part in batches] if baselines else [{}]
    for name in parts[0]:
        measured[name] = pointing(torch.cat([part[name] for part in parts]).numpy(), mask, patient)
    content = evaluate_maps(measured)
    if "probability" in scored and mask.ndim == 4:  # maps of what a network has learnt to recognise
        found = localise(scored["anomaly_map"][known, 0], mask[:, 0], scored["score"][known])
        content["boxes"] = without_nan(found._asdict())
    return content


def _write_gallery(path: Path, exhibits: list[tuple[str, str, int]], data: PatchDataModule, detector: Detector) -> None:
    """Save the chosen cases, given as (kind, id, row), with the detector's output."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if not exhibits:
        return
    kinds, ids, rows = zip(*exhibits, strict=True)
    batch = data.store.batch(np.array(rows))
    ((_, scored),) = score_batches(detector.score, [batch], detector.device)
    arrays = {
        "id": np.array(ids),
        "kind": np.array(kinds),
        "image": batch["image"].numpy(),
        "anomaly_score": scored.score.astype(np.float32),
        "anomaly_map": scored.anomaly_map,
        "reconstruction": scored.reconstruction,
        "mask": batch.get("mask"),
    }
    buffer = io.BytesIO()
    present: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    np.savez_compressed(buffer, **present)
    run_folder.write_atomic(path, buffer.getvalue())


def _extremes(scores: Scores, threshold: float | None) -> list[tuple[str, int]]:
    """Return (outcome, position) of the most extreme test scores: the highest flagged and the lowest unflagged ones.

    Outcomes are "tp", "fp", "tn" and "fn"; there are at most GALLERY_CASES of each.
    """
    if threshold is None:
        return []
    test, predicted = scores.of("test"), scores.score > threshold
    order = np.argsort(-scores.score, kind="stable")
    kinds = {"tp": (1, True), "fp": (0, True), "tn": (0, False), "fn": (1, False)}
    chosen = []
    for kind, (label, flagged) in kinds.items():
        members = [int(i) for i in order if test[i] and scores.label[i] == label and predicted[i] == flagged]
        chosen += [(kind, i) for i in (members if flagged else members[::-1])[:GALLERY_CASES]]
    return chosen


def _missed(scores: Scores, threshold: float | None) -> list[int]:
    """Return the positions of the missed test cases, lowest scores first, at most MOST_MISSED."""
    if threshold is None:
        return []
    missed = np.flatnonzero(scores.of("test") & (scores.label == 1) & (scores.score <= threshold))
    return [int(i) for i in missed[np.argsort(scores.score[missed], kind="stable")][:MOST_MISSED]]


def _of_classes(table: ClassTable, metrics: dict[str, Any]) -> list[tuple[str, int]]:
    """Return (outcome:class, position) of the test cases in which a class is found, missed or mistaken.

    The most probable ones come first, of missed ones the least probable; there are at most CLASS_CASES of each.
    """
    cuts = [metrics["each"][name].get("threshold") for name in table.classes]
    called = called_classes(table.probability, [cut for cut in cuts if cut is not None])
    test = table.of("test")
    chosen = []
    for k in range(len(table.classes)):
        order = np.argsort(-table.probability[:, k], kind="stable")
        kinds = {"found": (1, True), "missed": (1, False), "mistaken": (0, True)}
        for kind, (target, is_called) in kinds.items():
            members = order[test[order] & (table.target[order, k] == target) & (called[order, k] == is_called)]
            ends = members[::-1] if kind == "missed" else members
            chosen += [(f"{kind}:{k}", int(i)) for i in ends[:CLASS_CASES]]
    return chosen


def _fixed(scores: Scores) -> list[tuple[str, int]]:
    """Return the first test cases of each class by id; they are the same in all runs, to compare methods on them."""
    test, by_name = scores.of("test"), np.argsort(np.array(scores.id), kind="stable")
    members = ([int(i) for i in by_name if test[i] and scores.label[i] == label] for label in (1, 0))
    return [("fixed", i) for positions in members for i in positions[:FIXED_CASES]]


def _write_missed(
    path: Path, missed: list[tuple[str, int]], data: PatchDataModule, scored: dict[str, np.ndarray]
) -> None:
    """Save small pictures of the missed test cases, given as (id, row), with the maps that are there anyway.

    No case is scored for them, which takes long where a latent code is searched.
    """
    path.unlink(missing_ok=True)
    if not missed or len(data.patch_size) == 3:
        return
    ids, rows = zip(*missed, strict=True)
    parts: dict[str, list[torch.Tensor]] = {"image": [], "mask": [], "anomaly_map": []}
    for some in np.array_split(np.array(rows), len(rows) // READ_IMAGES + 1):
        batch: dict[str, Any] = {**data.store.batch(some)}
        if "anomaly_map" in scored:
            batch["anomaly_map"] = torch.from_numpy(scored["anomaly_map"][np.searchsorted(scored["row"], some)])
        for name, members in parts.items():
            if name in batch:
                members.append(_small(batch[name]))
    arrays: dict[str, Any] = {name: torch.cat(members).numpy() for name, members in parts.items() if members}
    if "mask" in arrays:
        arrays["mask"] = arrays["mask"] >= 0.5
    arrays |= {"id": np.array(ids), "kind": np.array(["fn"] * len(ids))}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    run_folder.write_atomic(path, buffer.getvalue())


def _small(pictures: torch.Tensor) -> torch.Tensor:
    """Return pictures [B, C, H, W] with MISSED_SIDE pixels per side at most, each the mean of those it is for."""
    height, width = pictures.shape[2:]
    share = min(1.0, MISSED_SIDE / max(height, width))
    size = max(1, round(height * share)), max(1, round(width * share))
    return torch.nn.functional.adaptive_avg_pool2d(pictures.float(), size).half()
