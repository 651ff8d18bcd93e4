"""Export a trained run: one model file, and beside it export.json with all that the model does not know.

Nothing leaves that disagrees: before an export is put in its place, the file is read back and scores images of the run
and noise, and its scores, maps and probabilities are compared with those of the run itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly_lab import __version__
from anomaly_lab.evaluation.map_score import MapScore
from anomaly_lab.evaluation.reference import Reference
from anomaly_lab.experiment import checkpoint_files, record, run_folder
from anomaly_lab.pipeline import graph, launchers
from anomaly_lab.pipeline.console import say
from anomaly_lab.pipeline.scorer import ScoredScan, Scorer
from anomaly_lab.reports.gallery import read_gallery
from anomaly_lab.reports.html import without_folders
from anomaly_lab.reports.prediction_page import caveats
from anomaly_lab.reports.record import read_run
from anomaly_lab.runtime import description as descriptions
from anomaly_lab.runtime.description import Description
from anomaly_lab.runtime.scorer import ExportScorer, ScoredArray
from anomaly_lab.types import Batch, UserError

TOLERANCE = 1e-4  # largest difference, as a share of the largest value of its kind: float32 has seven digits
STORED = 8  # images of the run that are compared
NOISE = 4  # images of noise of either kind
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
_Outputs = dict[str, NDArray[np.float32]]


class Exported(NamedTuple):
    """An export.

    Attributes:
        folder: of the files.
        model: the model's file.
        differences: largest difference to the run by output, as a share of the largest value.
    """

    folder: Path
    model: Path
    differences: dict[str, float]


def export_run(path: str | Path, format: str = "onnx", out: str | None = None) -> Exported:
    """Export a trained and evaluated run.

    Args:
        path: the run folder.
        format: "onnx", which `anomaly_lab.load` scores without torch; or "pt2", for programs with torch.
        out: folder for the files: new, empty, or with a former export of the same run, which is replaced; None for
            `exports/<format>` in the run folder.

    Raises:
        UserError: the run is not trained or not evaluated, its detector cannot be exported, the export does not agree
            with the run, or the folder holds something else.

    Examples:
        >>> export_run("runs/ganomaly_headct/20260101-120000-laptop-1a2b").differences  # doctest: +SKIP
        {'score': 1.2e-07, 'map': 2.4e-07}
    """
    if launch := launchers.launched():
        raise UserError(f"export is the work of one process, but {launch.program} started {launch.size}; start one")
    kinds: dict[str, graph.Format] = {"onnx": "onnx", "pt2": "pt2"}
    if format not in kinds:
        raise UserError(f"FORMAT={format}: there are onnx and pt2")
    run = run_folder.open_run(str(path))
    id = str(record.read_provenance(run).get("id") or run.resolve().name)
    place = Path(out) if out is not None else run / "exports" / format
    run_folder.refuse_here(place)
    _refuse_taken(place, id)
    scorer = Scorer.open(run)
    with _placed(place) as making:
        made = graph.traced(scorer.detector, (scorer.data.in_channels, *scorer.data.patch_size))
        model = making / f"model.{format}"
        graph.save(made, model, kinds[format])
        differences, compared = _compared(run, scorer, made, model, _described(run, scorer, made, model, id))
        described = _described(run, scorer, made, model, id)
        described["equality"] = {
            "largest_difference": differences,
            "tolerance": _tolerances(scorer),
            "images": compared,
        }
        run_folder.write_json(making / descriptions.FILE, described)
        descriptions.read(making)  # what is written can be read
    megabytes = (place / model.name).stat().st_size / 1e6
    apart = ", ".join(f"{name} {value:.0e}" for name, value in differences.items())
    say(f"{place / model.name} ({megabytes:.3g} MB) and {descriptions.FILE}; largest difference to the run: {apart}")
    return Exported(place, place / model.name, differences)


def _compared(
    run: Path, scorer: Scorer, made: graph.Graph, model: Path, described: Description
) -> tuple[dict[str, float], dict[str, int]]:
    """Return the largest differences between export and run by output, and how many images were compared.

    Raises:
        UserError: one is beyond the tolerance.
    """
    runtime = None if model.suffix == ".pt2" else ExportScorer(described, model.read_bytes())
    images = np.concatenate([_stored(run, scorer), _noise(scorer)])
    wanted = _of_run(scorer, images, made.outputs)
    run_export = _of_pt2(model, made) if runtime is None else runtime.outputs
    differences = _differences(wanted, run_export(images))
    alone = run_export(images[:1])  # the batch is free, unless the graph says otherwise
    differences = _larger(differences, _differences({name: each[:1] for name, each in wanted.items()}, alone))
    pictures: list[NDArray[Any]] = [] if runtime is None or _takes_volumes(scorer) else list(_pictures(scorer))
    for picture in pictures:
        assert runtime is not None
        whole = scorer.score(picture, anyway=True), runtime.score(picture, anyway=True)
        differences = _larger(differences, _apart(*whole, scale=wanted))
    allowed = _tolerances(scorer)
    beyond = {name: value for name, value in differences.items() if not value <= allowed[name]}
    if beyond:
        name, value = next(iter(beyond.items()))
        raise UserError(
            f"the export of {run} does not agree with the run: its {name} differs by {value:.1e} of the largest value, "
            f"allowed is {allowed[name]:.0e}; nothing was left. Score with the run itself: make predict, al.load(run)"
        )
    return differences, {"stored": len(images) - 2 * NOISE, "noise": 2 * NOISE, "pictures": len(pictures)}


def _tolerances(scorer: Scorer) -> dict[str, float]:
    return {name: scorer.detector.map_tolerance if name == "map" else TOLERANCE for name in graph.OUTPUTS}


def _of_run(scorer: Scorer, images: NDArray[np.float32], outputs: Sequence[str]) -> _Outputs:
    """Return what the run's detector says of images [n, C, *S], as of images it has never seen."""
    detector, kept = scorer.detector, scorer.detector.rescored
    try:
        if isinstance(kept, MapScore):
            detector.rescored = kept.for_new_images()
        said = detector.score(Batch(image=torch.from_numpy(images)))
    finally:
        detector.rescored = kept
    return {name: getattr(said, graph.OUTPUTS[name]).detach().float().numpy() for name in outputs}


def _of_pt2(model: Path, made: graph.Graph) -> Callable[[NDArray[np.float32]], _Outputs]:
    program = torch.export.load(model).module()

    def run_export(images: NDArray[np.float32]) -> _Outputs:
        with torch.no_grad():
            parts = [program(part) for part in torch.split(torch.from_numpy(images), made.batch or len(images))]
        whole = (torch.cat(blocks).numpy() for blocks in zip(*parts, strict=True))
        return dict(zip(made.outputs, whole, strict=True))

    return run_export


def _differences(wanted: _Outputs, got: _Outputs) -> dict[str, float]:
    """Return the largest differences by output, as shares of the largest value; infinite where a number is none."""
    shares = {}
    for name, values in wanted.items():
        if got[name].shape != values.shape or not np.isfinite(values).all():
            shares[name] = float("inf")
            continue
        apart = np.abs(values.astype(np.float64) - got[name])
        shares[name] = float(np.nan_to_num(apart, nan=np.inf).max() / max(float(np.abs(values).max()), 1e-30))
    return shares


def _apart(own: ScoredScan, exported: ScoredArray, scale: _Outputs) -> dict[str, float]:
    """Return the same for one whole picture, with the maps on its own grid."""
    pairs: list[tuple[str, Any, Any]] = [("score", own.score, exported.score)]
    if own.anomaly_map is not None and "map" in scale:
        pairs.append(("map", own.anomaly_map, exported.anomaly_map))
    if own.probabilities is not None:
        pairs.append(("probabilities", own.probabilities, exported.probabilities))
    shares = {}
    for name, one, other in pairs:
        largest = max(float(np.abs(one).max()), float(np.abs(scale[name]).max()), 1e-30)
        shares[name] = float(np.nan_to_num(np.abs(np.asarray(one, np.float64) - other), nan=np.inf).max()) / largest
    return shares


def _larger(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {name: max(value, other.get(name, 0.0)) for name, value in one.items()}


def _stored(run: Path, scorer: Scorer) -> NDArray[np.float32]:
    """Return images that the run keeps of its cases, [n, C, *S] in [-1, 1]; none where they are of another size."""
    shape = (scorer.data.in_channels, *scorer.data.patch_size)
    images = read_gallery(run).get("image")
    if images is None or images.shape[1:] != shape:
        return np.empty((0, *shape), np.float32)
    return np.ascontiguousarray(images[:STORED], np.float32).clip(-1, 1)


def _noise(scorer: Scorer) -> NDArray[np.float32]:
    """Return noise that is always the same: fine, and in blocks of eight pixels, [2 NOISE, C, *S] in [-1, 1]."""
    shape = (scorer.data.in_channels, *scorer.data.patch_size)
    rng = np.random.default_rng(0)
    fine = rng.uniform(-1, 1, (NOISE, *shape)).astype(np.float32)
    coarse = rng.uniform(-1, 1, (NOISE, shape[0], *(-(-side // 8) for side in shape[1:]))).astype(np.float32)
    for axis, side in enumerate(shape[1:], start=2):
        coarse = coarse.repeat(8, axis).take(range(side), axis)
    return np.concatenate([fine, coarse])


def _pictures(scorer: Scorer) -> Iterator[NDArray[Any]]:
    """Yield pictures of several types that have to be padded and resized, or have several windows."""
    rng = np.random.default_rng(1)
    height, width = scorer.data.patch_size[-2] * 5 // 4 + 3, scorer.data.patch_size[-1] * 3 // 2 + 1
    white = scorer.data.picture.range
    yield rng.integers(0, int(min(255, max(1, white or 255))) + 1, (height, width), np.uint8)
    yield rng.uniform(0, white or 1, (height, width, 3))


def _takes_volumes(scorer: Scorer) -> bool:
    kinds = scorer.expected.facts.get("kinds") or {}
    return len(scorer.data.patch_size) == 3 or any(kind != "picture" for kind in kinds)


def _described(run: Path, scorer: Scorer, made: graph.Graph, model: Path, id: str) -> Description:
    data, plan = scorer.data, scorer.plan
    facts = record.read_provenance(run)
    metrics = record.read_metrics(run, needs=("threshold.value", "unit.rule", "unit.top_k"))
    volume, windows = plan.preprocessing.volume, plan.patch_sampling
    content = model.read_bytes()
    return {
        "version": 1,
        "model": {
            "file": model.name,
            "format": "pt2" if model.suffix == ".pt2" else "onnx",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "outputs": [*made.outputs],  # type: ignore[list-item]
            "batch": made.batch,
        },
        "patches": {
            "channels": data.in_channels,
            "size": [*data.patch_size],
            "bits": 8 if plan.dtype == np.uint8 else 16,
        },
        "crop": data.cropping,
        "picture": {
            "range": data.picture.range,
            "max_pixels": data.picture.max_pixels,
            "size": None if plan.preprocessing.size is None else [*plan.preprocessing.size],
            "fit": plan.preprocessing.fit,
        },
        "volume": {
            "axcodes": volume.axcodes,
            "spacing": _listed(volume.spacing),
            "window": _listed(volume.window),
            "zscore": volume.zscore,
            "percentiles": _listed(volume.percentiles),
            "foreground_above": volume.foreground_above,
            "max_voxels": volume.max_voxels,
        },
        "windows": None
        if windows is None
        else {
            "overlap": windows.overlap,
            "plane": windows.plane,
            "foreground": windows.foreground,
            "counted": data.patch_sampling.foreground if data.patch_sampling else 0.0,
            "slices": _listed(data.patch_sampling.slices) if data.patch_sampling else None,
        },
        "stitching": {"rule": metrics["unit"]["rule"], "top_k": metrics["unit"]["top_k"]},
        "threshold": scorer.threshold,
        "purpose": metrics["threshold"].get("purpose"),
        "normals": np.sort(scorer.normals).tolist(),
        "reference": {"says": str(scorer.reference), "scale": _listed(scorer.reference.scale)},
        "classes": [*scorer.classes],
        "expected": {**scorer.expected.facts},  # type: ignore[typeddict-item]
        "meaning": _meaning(scorer.reference),
        "caveats": [
            *map(without_folders, caveats(read_run(run), scorer.reference, scorer.expected.is_known)),
            *filter(None, [scorer.of_arrays]),
        ],
        "equality": {},
        "run": {
            "name": f"{run.resolve().parent.name}/{run.resolve().name}",
            "id": id,
            "experiment": facts.get("experiment"),
            "detector": (facts.get("detector") or {}).get("class"),
            "budget": facts.get("budget"),
            "source": facts.get("source"),
            "seed": facts.get("seed"),
            "checkpoint": checkpoint_files.final(run, facts).name,
            "data": (facts.get("data") or {}).get("fingerprint"),
            "code": facts.get("code"),
            "git": facts.get("git"),
            "versions": facts.get("versions"),
            "exported": run_folder.now(),
            "exported_by": {"anomaly_lab": __version__, **{name: _version(name) for name in PACKAGES}},
        },
    }


def _meaning(reference: Reference) -> str:
    """Return what a score is for, in words."""
    purpose = reference.threshold.get("purpose")
    rule = f" It was set for the purpose {purpose}." if purpose else ""
    highest = ", each with the highest score of its windows" if reference.unit == "scans" else ""
    return (
        "A score is a raw number, higher = more anomalous; only scores of this very model compare. Above the threshold "
        f"a scan is called anomalous.{rule} The p-value is the share of the {len(reference.normals)} {reference.words}"
        f"{highest}, the scan among them, that score at least as high. It ranks scans for a reader and is no diagnosis."
    )


def _listed(values: Any) -> Any:
    return [*values] if isinstance(values, tuple | list) else values


def _version(package: str) -> str | None:
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _refuse_taken(place: Path, id: str) -> None:
    """Refuse a folder that holds anything but a former export of the same run."""
    if not os.path.lexists(place):
        return
    if place.is_symlink() or not place.is_dir():
        raise UserError(f"{place} is no folder; name another one: OUT=…")
    names = {path.name for path in place.iterdir()}
    if not names:
        return
    ours = descriptions.FILE in names and names <= {descriptions.FILE, "model.onnx", "model.pt2"}
    if not ours or descriptions.read(place)["run"].get("id") != id:
        raise UserError(f"{place} holds something else than an export of this run; name another folder: OUT=…")


@contextlib.contextmanager
def _placed(place: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of `place` once the block has ended well; otherwise nothing is left."""
    making = place.with_name(f".{place.name}.{secrets.token_hex(4)}.making")
    with run_folder.disk_errors(place):
        making.mkdir(parents=True)
    try:
        yield making
        with run_folder.disk_errors(place):
            if place.exists():
                shutil.rmtree(place)
            making.replace(place)
    finally:
        shutil.rmtree(making, ignore_errors=True)
