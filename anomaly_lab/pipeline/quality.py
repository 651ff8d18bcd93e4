"""Measure the images of a trained run against validation normals: those it draws, and those it reconstructs.

Validation normals are held out from training, and no label of the test split is asked: quality may then decide which
generator is used. They set the threshold as well, which does not touch the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.devices import rounding
from anomaly_lab.experiment.quality import Drawn, Estimate, Features, Reconstructed, Spread
from anomaly_lab.losses.perceptual import perceptual_distance
from anomaly_lab.metrics.generation import frechet_distance, kernel_distance_and_error, precision_and_recall
from anomaly_lab.networks.backbones import BackboneName
from anomaly_lab.networks.classifier_features import ClassifierFeatures
from anomaly_lab.types import Batch, Range, UserError

Rows = NDArray[np.float64]
NEIGHBOURS = 3  # of precision and recall (Kynkäänniemi et al. 2019)
FEWEST = NEIGHBOURS + 1  # images of a set
PART = 32  # images generated at a time: a number of its own, since it decides which noise they get


@dataclass
class Words:
    """Settings of the command `quality`.

    Attributes:
        features: classifier in whose features images are compared.
        weights: file of its state dict; `package` for the weights that the extra `features` installs, `random` for
            fixed random ones, with which figures compare only runs on the same data set.
        samples: largest number of validation normals, of generated images, and of training normals.

    Examples:
        >>> Words(samples=500).features
        'efficientnet_lite0'
    """

    features: BackboneName = "efficientnet_lite0"
    weights: str = "package"
    samples: Annotated[int, Range("[4, 100000]")] = 2000

    def network(self) -> ClassifierFeatures:
        """Return the classifier with its weights.

        Raises:
            UserError: they are missing or are those of another network.
        """
        return ClassifierFeatures(self.features, self.weights)


def measured(
    data: PatchDataModule, detector: Detector, words: Words, network: ClassifierFeatures, seed: int
) -> dict[str, Any]:
    """Measure the images that a detector draws and reconstructs.

    Args:
        data: the data set, set up.
        detector: the trained detector.
        words: settings.
        network: the classifier of these settings, on the detector's device.
        seed: of the noise that images are drawn from.

    Returns:
        The parts of quality.json that are measured, see `experiment.quality`.

    Raises:
        UserError: the detector neither draws nor reconstructs images, there are too few, or they are no pictures.
    """
    held_out, trained = (min(words.samples, len(data.rows[split])) for split in ("val", "train"))
    name = type(detector).__name__
    if len(data.patch_size) != 2:
        raise UserError(
            f"quality: images of the shape {tuple(data.patch_size)} are no pictures; classifiers take 2-D ones"
        )
    if min(held_out, trained) < FEWEST:
        raise UserError(
            f"quality: {held_out} validation and {trained} training normals are too few; at least {FEWEST} of each are "
            "needed (data.split.val_fraction)"
        )
    camera = _Camera(detector.eval(), network)
    first = next(iter(data.images("val", at_most=held_out)))[:FEWEST]
    draws = camera.drawn(FEWEST, torch.Generator().manual_seed(seed)) is not None
    reconstructs = camera.reconstructed(first) is not None
    if not draws and not reconstructs:
        raise UserError(f"quality: {name} neither generates nor reconstructs images; there is nothing to measure")
    with Meter("measuring", "image", images=1) as meter:
        camera.count = _Count(meter, held_out + (held_out + min(held_out, trained) if draws else 0))
        normals, likeness = camera.compared(data.images("val", at_most=held_out), reconstructs)
        generated = training = None
        if draws:
            generated = _against(normals, camera.rows(camera.samples(held_out, seed)))
            training = _against(normals, camera.rows(data.images("train", at_most=held_out)))
    weights = words.weights if words.weights in ("package", "random") else Path(words.weights).name
    return {
        "features": Features(network=words.features, weights=weights, sha256=network.digest, side=network.side),
        "held_out": held_out,
        "generated": generated,
        "training": training,
        "reconstructed": likeness,
    }


class _Count:
    """Tells a meter how many images of all were measured."""

    def __init__(self, meter: Meter, total: int) -> None:
        self.meter, self.total, self.done = meter, total, 0

    def add(self, n: int) -> None:
        self.done += n
        self.meter.show(self.done, self.total)


class _Camera:
    """Takes images [B, C, H, W] from a detector, and their features from a classifier."""

    count: _Count

    def __init__(self, detector: Detector, network: ClassifierFeatures) -> None:
        self.detector, self.network, self.device = detector, network, detector.device

    def drawn(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Return n generated images; None if the detector has no generator."""
        with torch.no_grad(), rounding(self.device, strict=True):
            return _finite(self.detector.sample(n, generator), "generated images")

    def samples(self, n: int, seed: int) -> Iterator[Tensor]:
        """Yield n generated images."""
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, n, PART):
            images = self.drawn(min(PART, n - start), generator)
            assert images is not None, "it has drawn images before"
            yield images

    def reconstructed(self, image: Tensor) -> Tensor | None:
        """Return the reconstructions of images; None if the detector makes none."""
        return _finite(self.detector.score(Batch(image=image.to(self.device))).reconstruction, "reconstructions")

    def taps(self, image: Tensor) -> list[Tensor]:
        """Return the classifier's maps of images."""
        with torch.no_grad(), rounding(self.device, strict=True):
            taps: list[Tensor] = self.network(image)
        return taps

    def rows(self, batches: Iterable[Tensor]) -> Rows:
        """Return the pooled features of images, [n, F]."""
        return self.compared(batches, reconstructs=False)[0]

    def compared(self, batches: Iterable[Tensor], reconstructs: bool) -> tuple[Rows, Reconstructed | None]:
        """Return the pooled features of images, [n, F], and how far their reconstructions are from them."""
        rows: list[Rows] = []
        alike: list[Tensor] = []
        for image in (part.to(self.device) for batch in batches for part in torch.split(batch, PART)):
            taps = self.taps(image)
            rows.append(self.network.pooled(taps).cpu().double().numpy())
            if reconstructs and (copy := self.reconstructed(image)) is not None:
                structure = ssim(copy, image, data_range=2.0, reduction="none")
                assert isinstance(structure, Tensor)
                alike.append(torch.stack([structure, perceptual_distance(taps, self.taps(copy))]).cpu().double())
            self.count.add(len(image))
        if not alike:
            return np.concatenate(rows), None
        of_ssim, of_distance = (
            Spread(mean=float(values.mean()), deviation=float(values.std())) for values in torch.cat(alike, 1)
        )
        return np.concatenate(rows), Reconstructed(images=sum(map(len, rows)), ssim=of_ssim, perceptual=of_distance)


def _finite(images: Tensor | None, what: str) -> Tensor | None:
    """Return images without a graph in float32, if there are any; refuse what is no number."""
    if images is not None and not images.isfinite().all():
        raise UserError(f"quality: some {what} are not finite numbers: the training has diverged")
    return None if images is None else images.detach().float()


def _against(normals: Rows, images: Rows) -> Drawn:
    """Compare the features of images with those of held-out normals."""
    kid, error = kernel_distance_and_error(normals, images)
    precision, recall = precision_and_recall(normals, images, NEIGHBOURS)
    return Drawn(
        images=len(images),
        kid=Estimate(value=kid, error=error),
        fid=frechet_distance(normals, images),
        precision=precision,
        recall=recall,
    )
