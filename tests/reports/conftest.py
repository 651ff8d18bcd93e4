"""A finished run folder with plausible content in every file, and hostile text where strangers write."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_classes
from numpy.typing import NDArray
from PIL import Image

from anomaly_lab.evaluation.classes import evaluate_classes

HOSTILE = "<script>alert(1)</script>"
Edit = Callable[[dict[str, Any]], None]


def _figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.081, "high": min(1.0, value + 0.069)}


def _figures(start: float) -> dict[str, dict[str, float]]:
    ranking = ["auroc", "average_precision", "sensitivity_at_95_specificity"]
    at_threshold = ["accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1"]
    return {name: _figure(round(start - 0.013 * i, 3)) for i, name in enumerate(ranking + at_threshold)}


def fake_metrics() -> dict[str, Any]:
    """metrics.json of a run that beats neither floor clearly."""
    return {
        "counts": {"val": {"normal": 25, "anomalous": 0}, "test": {"normal": 40, "anomalous": 60}},
        "threshold": {
            "value": 0.3217,
            "rule": "conformal quantile",
            "quantile": 0.95,
            "num_normals": 25,
            "warning": None,
        },
        "detector": _figures(0.871),
        "baselines": {"mean_image": _figures(0.672), "pca_32": _figures(0.806)},
        "trivial": {
            "all_anomalous": dict(
                accuracy=0.6, balanced_accuracy=0.5, precision=0.6, recall=1.0, specificity=0.0, f1=0.75
            ),
            "all_normal": dict(accuracy=0.4, balanced_accuracy=0.5, precision=0.0, recall=0.0, specificity=1.0, f1=0.0),
        },
        "versus_baselines": {
            "best": "pca_32",
            "difference": {"value": 0.065, "low": -0.012, "high": 0.143},
            "beaten": True,
            "sentence": "The detector beats the PCA-32 baseline: AUROC .871 against .806 "
            "(difference .065, 95 % interval -.012 to .143, which includes 0).",
        },
        "oracle": {"best_f1": {"value": 0.834, "threshold": 0.2876}},
        "pixels": {
            "num_masks": 60,
            "patients": 100,
            "level": 0.95,
            "auroc": {"value": 0.913, "low": 0.881, "high": 0.945},
            "pro": {"value": 0.547, "low": 0.49, "high": 0.604},
            "baselines": {
                "mean_image": {
                    "auroc": {"value": 0.931, "low": 0.9, "high": 0.962},
                    "pro": {"value": 0.601, "low": 0.55, "high": 0.652},
                },
                "pca_32": {
                    "auroc": {"value": 0.702, "low": 0.65, "high": 0.754},
                    "pro": {"value": 0.31, "low": 0.26, "high": 0.36},
                },
            },
            "versus_baselines": {
                "best": "mean_image",
                "difference": {"value": -0.018, "low": -0.04, "high": 0.004},
                "beaten": False,
            },
        },
        "bootstrap": {"replicates": 2000, "unit": "patient", "strata": "label", "level": 0.95, "seed": 0},
    }


def fake_provenance() -> dict[str, Any]:
    """provenance.json of a finished twin run with a reduced budget."""
    return {
        "experiment": "fanogan_headct",
        "run": "2026-03-01T10-22-05-k3f9",
        "started": "2026-03-01 10:22:05",
        "finished": "2026-03-01 10:31:48",
        "command": "python -m anomaly_lab train fanogan_headct seed=0",
        "seed": 0,
        "budget": "laptop",
        "budget_overrides": {"detector.gan_iterations": 1200, "detector.encoder_iterations": 800},
        "paper": {"phases": {"gan": 50000, "encoder": 50000}},
        "source": "twin",
        "git": {"commit": "0f3c9a1be77d2c55aa01", "dirty": True},
        "versions": {"torch": "2.14.1", "pytorch-lightning": "2.6.6"},
        "machine": {"cpu": "x86-64", "cores": 2, "ram_gb": 8, "gpu": None},
        "threads": 2,
        "precision": "bf16-mixed",
        "detector": {
            "class": "anomaly_lab.detectors.fanogan.FAnoGAN",
            "parameters": {"generator": 9182721, "critic": 8641537, "encoder": 9107712},
            "phases": {"gan": 1200, "encoder": 800},
        },
        "seconds": {"gan": 391.2, "encoder": 122.4},
        "checkpoint": {"rule": "last", "iteration": 2000},
        "resumed": [],
        "data": {
            "name": "Head-CT",
            "source": "twin",
            "fingerprint": "9d1c3b7a55e0f2a8c4417e",
            "counts": {
                "train": {"normal": 75, "anomalous": 0},
                "val": {"normal": 25, "anomalous": 0},
                "test": {"normal": 40, "anomalous": 60},
            },
            "patients": {"train": 75, "val": 25, "test": 100},
            "split_rule": "by patient: 75 % of the normals to train on, 25 held out, seed 0",
            "skipped": [{"file": f"head_ct/{HOSTILE}.png", "reason": "truncated file"}],
            "audit": {
                "shared_patients": [],
                "identical": [{"ids": ["188", "189"], "splits": ["train", "test"]}],
                "near_identical": [{"ids": ["021", HOSTILE], "splits": ["test", "test"], "distance": 0.0123}],
                "crossing": 1,
                "checked": 200,
            },
        },
    }


def _log_lines(rng: np.random.Generator) -> list[dict[str, Any]]:
    lines = []
    for i in range(1, 1201, 4):
        fade = np.exp(-i / 250)
        w = 4 + 30 * fade + rng.normal(0, 0.6)
        lines.append({"iteration": i, "images": i * 160, "phase": "gan", "train/critic": -w, "train/wasserstein": w})
        lines[-1] |= {
            "train/penalty": abs(rng.normal(0.4, 0.15)),
            "train/generator": rng.normal(-3 - 6 * fade, 1),
        }
        lines[-1] |= {
            "train/grad_critic": abs(rng.normal(4, 1)),
            "train/grad_generator": abs(rng.normal(1, 0.3)),
        }
    for i in range(1201, 2001, 4):
        loss = 0.05 + 0.3 * np.exp(-(i - 1200) / 150) + rng.normal(0, 0.004)
        lines.append({"iteration": i, "images": 192000 + (i - 1200) * 32, "phase": "encoder", "train/encoder": loss})
        lines[-1] |= {
            "train/image_residual": loss * 0.8,
            "train/feature_residual": loss * 0.2,
            "train/grad_encoder": loss,
        }
        if i % 200 == 1:
            lines[-1]["val/anomaly_score"] = loss * 1.1
    return lines


def _scores_csv(rng: np.random.Generator) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "patient", "split", "label", "score", "p_value", "pred_label", "mean_image", "pca_32"])
    groups = [("val", 0, 25, 0.2), ("test", 0, 40, 0.21), ("test", 1, 60, 0.38)]
    for split, label, size, center in groups:
        for i in range(size):
            hostile = (split, label, i) == ("test", 1, 0)
            case = HOSTILE if hostile else f"{split}-{label}-{i:03d}"
            score = 0.61 if hostile else float(abs(rng.normal(center, 0.07)))  # in the gallery
            p_value = "" if split == "val" else repr(float(rng.integers(1, 26)) / 26)
            called = "" if split == "val" else int(score > 0.3217)
            baselines = [repr(float(rng.normal(0.3 + label * size, 0.2))) for size in (0.1, 0.2)]
            writer.writerow([case, f"p{i}", split, label, repr(score), p_value, called, *baselines])
    return text.getvalue()


def head(rng: np.random.Generator, lesion: bool, size: int = 64) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A made-up head, [1, size, size] in [-1, 1], and its lesion mask."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(x / 0.72, y / 0.9)
    image = np.where(radius < 1, -0.25, -1.0) + 1.1 * np.exp(-(((radius - 1) / 0.06) ** 2))
    image += 0.12 * np.sin(6 * x + rng.uniform(0, 6)) * np.cos(5 * y + rng.uniform(0, 6)) * (radius < 0.95)
    at = rng.uniform(-0.35, 0.35, 2)
    mask = (np.hypot((x - at[0]) / 1.4, y - at[1]) < rng.uniform(0.12, 0.25)) & lesion
    image = image + 0.5 * mask + rng.normal(0, 0.03, image.shape)
    return np.clip(image, -1, 1)[None].astype(np.float32), mask[None]


def _picked(scores: str) -> list[tuple[str, str]]:
    """Id and kind of the four most extreme test cases of each kind, fewer where there are not so many."""
    rows = [row for row in csv.DictReader(io.StringIO(scores)) if row["split"] == "test"]
    picked = []
    for kind, label, called in (("tp", "1", "1"), ("fp", "0", "1"), ("tn", "0", "0"), ("fn", "1", "0")):
        some = [row for row in rows if (row["label"], row["pred_label"]) == (label, called)]
        some.sort(key=lambda row: float(row["score"]), reverse=called == "1")
        picked += [(row["id"], kind) for row in some[:4]]
    return picked


def _write_samples(folder: Path, scores: str, rng: np.random.Generator) -> None:
    folder.mkdir()
    ids, kinds = zip(*_picked(scores), strict=True)
    heads, masks = zip(*(head(rng, lesion=kind in ("tp", "fn")) for kind in kinds), strict=True)
    image, mask = np.stack(heads), np.stack(masks)
    clean = np.where(mask, -0.25, image) * 0.92
    np.savez(
        folder / "gallery.npz",
        id=np.array(ids),
        kind=np.array(kinds),
        image=image,
        reconstruction=clean.astype(np.float32),
        anomaly_map=np.abs(image - clean).astype(np.float32),
        mask=mask,
    )
    for iteration in range(200, 2001, 200):
        blur = rng.normal(0, 300 / iteration, (64, 64))
        grid = np.tile(np.clip(head(rng, lesion=False)[0][0] + blur, -1, 1), (4, 4))
        Image.fromarray(((grid + 1) * 127.5).astype(np.uint8)).save(folder / f"{iteration:08d}.png")


@pytest.fixture
def fake_run(tmp_path: Path) -> Path:
    """A finished run folder: twin, laptop budget, masks, hostile ids."""
    rng = np.random.default_rng(0)
    run = tmp_path / "runs" / "fanogan_headct" / "2026-03-01T10-22-05-k3f9"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        f"name: fanogan_headct\nseed: 0\nnote: '{HOSTILE}'\ndetector:\n  latent_dim: 128\n"
    )
    (run / "provenance.json").write_text(json.dumps(fake_provenance()))
    (run / "metrics.json").write_text(json.dumps(fake_metrics()))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _log_lines(rng)))
    (run / "scores.csv").write_text(scores := _scores_csv(rng))
    _write_samples(run / "samples", scores, rng)
    return run


def add_classes(run: Path, task: str) -> None:
    """Make a run folder one of a run with labels: metrics, classes.csv, and pictures of each class."""
    table, scores, told = toy_classes.example(task)
    table = dataclasses.replace(table, classes=(*table.classes[:2], HOSTILE))
    told = told._replace(training={name: 30 for name in table.classes})
    content = json.loads((run / "metrics.json").read_text())
    content["classes"] = evaluate_classes(table, scores, told, 0.6, replicates=50)
    (run / "metrics.json").write_text(json.dumps(content))
    (run / "classes.csv").write_text(table.to_csv())
    with np.load(run / "samples" / "gallery.npz") as stored:
        arrays = dict(stored)
    kinds = [f"{outcome}:{k}" for k in range(3) for outcome in ("found", "missed", "mistaken")]
    for name in set(arrays) - {"id", "kind"}:
        arrays[name] = np.concatenate([arrays[name], arrays[name][: len(kinds)]])
    arrays["id"] = np.append(arrays["id"], [table.id[-i - 1] for i in range(len(kinds))])
    arrays["kind"] = np.append(arrays["kind"], kinds)
    np.savez(run / "samples" / "gallery.npz", **arrays)


@pytest.fixture(params=["multiclass", "multilabel"])
def labelled_run(fake_run: Path, request: pytest.FixtureRequest) -> Path:
    """The finished run folder, of a run with labels."""
    add_classes(fake_run, request.param)
    return fake_run


@pytest.fixture
def edit() -> Callable[[Path, Edit], None]:
    """Changes a JSON file of a run folder in place: edit(run / "metrics.json", change)."""

    def change(path: Path, by: Edit) -> None:
        content = json.loads(path.read_text())
        by(content)
        path.write_text(json.dumps(content))

    return change
