"""Monitor a GAN: discriminator overfitting, mode collapse and the quality of the generated images."""

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from anomaly_lab.callbacks.run_callback import Columns, RunCallback
from anomaly_lab.data.datamodule import PatchDataModule, data_of
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.scoring import Scored
from anomaly_lab.experiment.run_folder import update_provenance
from anomaly_lab.metrics.generation import frechet_distance, kernel_distance, spread
from anomaly_lab.metrics.ranking import auroc
from anomaly_lab.networks.features import SqueezeNetFeatures
from anomaly_lab.networks.pretrained import Normalisation
from anomaly_lab.types import Batch, Range, UserError

MIN_DIVERSITY = 0.4  # as a fraction of the training images' mean pairwise distance; below it the generator collapsed
SSIM_MARGIN = 5  # pixels by which its Gaussian reaches beyond a pixel
CHUNK = 64  # images per forward pass


class Health(RunCallback):
    """Compares generated images, training images and validation normals by pixels, features and discriminator output.

    After each epoch these terms are written to metrics.jsonl, unless they equal the previous epoch's. Each is measured
    on up to `watched` images of each kind, in eval mode and without augmentation, and left out where the detector lacks
    the network it needs:

    - `health/real_above_fake`: probability that the discriminator's output is higher for a training image than for a
      generated one; .5 means that it cannot tell them apart, 1 that it always can.
    - `health/train_above_held_out`: the same for a training image against a validation normal; values towards 1 mean
      that the discriminator has memorised the training images.
    - `health/overfitting`: (D(train) - D(validation)) / (D(train) - D(generated)), of the mean outputs; 0 means no
      overfitting, 1 that validation normals look like generated images (Karras et al. 2020, r_v).
    - `health/diversity`: mean pairwise distance of generated images divided by that of training images.

    After training, `health` in provenance.json holds these terms; `collapsed`, whether diversity is below .4; FID and
    KID between training images and as many generated ones, on the pooled features of SqueezeNet 1.0; and the mean SSIM
    and squared error between validation normals and their reconstructions. No label of the test split is used.

    Args:
        watched: largest number of images of each kind per epoch.
        samples: largest number of generated and of training images after training.
        features: file of torchvision's squeezenet1_0 weights; `random` uses fixed random weights, with which FID and
            KID compare only runs on the same data set.
        features_input: input normalisation that these weights expect, see `networks.pretrained`.

    Examples:
        Measure more images, with pretrained features::

            anomaly-lab train fanogan_headct callbacks.health.watched=256 callbacks.health.features=squeezenet1_0.pth
    """

    changes_scores = False

    def __init__(
        self,
        watched: Annotated[int, Range("[2, 100000]")] = 64,
        samples: Annotated[int, Range("[2, 100000]")] = 128,
        features: str = "random",
        features_input: Normalisation = "imagenet",
    ) -> None:
        if min(watched, samples) < 2:
            raise ValueError(f"callbacks.health: watched={watched} and samples={samples} must be at least 2")
        if features != "random" and not Path(features).is_file():
            raise UserError(
                f"callbacks.health.features={features}: no such file; give a file of torchvision's squeezenet1_0 "
                "weights, or random"
            )
        self.watched, self.samples = watched, samples
        self.features, self.features_input = features, features_input
        self._images: dict[str, Tensor] = {}
        self._last: dict[str, float] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = data_of(trainer)
        self._images = {split: _subset(data, split, self.watched) for split in ("train", "val")}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure and track the terms; runs after validation and before the epoch's metrics are written."""
        assert isinstance(pl_module, Detector)
        terms = trainer.strategy.broadcast(self._measure(pl_module))  # processors may round otherwise
        if terms != self._last:  # unchanged where generator and discriminator are frozen in this phase
            pl_module.track({f"health/{name}": torch.tensor(value) for name, value in terms.items()})
        self._last = terms

    def scored_columns(self, data: PatchDataModule, batch: Batch, scored: Scored) -> Columns:
        """Return SSIM and squared error [B] of each validation normal's reconstruction; NaN for test cases."""
        if scored.reconstruction is None:
            return {}
        validation = np.isin(batch["row"].cpu(), data.rows["val"])
        columns = {name: np.full(len(validation), np.nan) for name in ("ssim", "reconstruction_error")}
        if validation.any():
            image = batch["image"].cpu().float()[validation]
            reconstruction = torch.from_numpy(scored.reconstruction[validation])
            columns["ssim"][validation] = _ssim(reconstruction, image)
            columns["reconstruction_error"][validation] = (image - reconstruction).square().flatten(1).mean(1)
        return columns

    def on_scored(self, run: Path, data: PatchDataModule, detector: Detector, scored: Columns) -> None:
        health = self._measure(detector) | self._quality(detector, _subset(data, "train", self.samples))
        health |= _reconstruction(data, scored)
        if health:
            update_provenance(run, health=health)

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last = state_dict["last"]

    def _measure(self, detector: Detector) -> dict[str, float]:
        """Return the terms of an epoch that are finite: that weights have diverged, `Record` says after this."""
        terms: dict[str, float] = {}
        fake = _sample(detector, self.watched)
        train, validation = (self._images[split] for split in ("train", "val"))
        if fake is not None and (of_train := _spread(train)) > 0:
            terms["diversity"] = _spread(fake) / of_train
        d_train, d_validation = _discriminator_output(detector, train), _discriminator_output(detector, validation)
        if d_train is not None and d_validation is not None:
            terms["train_above_held_out"] = _probability_above(d_train, d_validation)
        d_fake = None if fake is None else _discriminator_output(detector, fake)
        if d_train is not None and d_fake is not None:
            terms["real_above_fake"] = _probability_above(d_train, d_fake)
        if d_train is not None and d_validation is not None and d_fake is not None:
            terms["overfitting"] = _overfitting(d_train.mean(), d_validation.mean(), d_fake.mean())
        return {name: value for name, value in terms.items() if math.isfinite(value)}

    def _quality(self, detector: Detector, real: Tensor) -> dict[str, Any]:
        """Return `collapsed`, FID and KID, with images and features they rest on; empty if nothing can be sampled."""
        fake = _sample(detector, len(real))
        if fake is None:
            return {}
        network = _feature_network(self.features, self.features_input)
        with torch.no_grad():
            of_real, of_fake = (
                torch.cat([network(part) for part in torch.split(image, CHUNK)]).numpy() for image in (real, fake)
            )
        return {
            "collapsed": _spread(fake) < MIN_DIVERSITY * _spread(real),
            "fid": frechet_distance(of_real, of_fake),
            "kid": kernel_distance(of_real, of_fake),
            "images": len(real),
            "features": "SqueezeNet 1.0, " + ("random weights" if self.features == "random" else "weights of a file"),
        }


def _reconstruction(data: PatchDataModule, scored: Columns) -> dict[str, Any]:
    """Return mean SSIM and squared error of reconstructed validation normals, and their number; empty without any."""
    if "ssim" not in scored or not len(data.rows["val"]):
        return {}
    validation = np.isin(scored["row"], data.rows["val"])
    means = {name: float(scored[name][validation].mean()) for name in ("ssim", "reconstruction_error")}
    return {name: value for name, value in means.items() if math.isfinite(value)} | {"held_out": int(validation.sum())}


def _subset(data: PatchDataModule, split: str, at_most: int) -> Tensor:
    """Return up to `at_most` images of a split, [n, C, *S]; the seed chooses them, the same ones at every call."""
    parts = list(data.images(split, at_most=at_most))
    return torch.cat(parts) if parts else torch.zeros(0)  # there may be no validation normals


def _sample(detector: Detector, n: int) -> Tensor | None:
    """Generate images [n, C, *S] from fixed noise, on the CPU; None where the detector cannot generate."""
    with torch.no_grad():
        fake = detector.eval().sample(n, torch.Generator().manual_seed(0))
    return None if fake is None else fake.float().cpu()


def _discriminator_output(detector: Detector, image: Tensor) -> np.ndarray | None:
    """Return the discriminator's output [n] for images; None without a discriminator or without images."""
    parts = []
    with torch.no_grad(), torch.autocast(detector.device.type, enabled=False):
        for part in torch.split(image, CHUNK) if len(image) else ():
            output = detector.eval().discriminator_output(part.to(detector.device))
            if output is None:
                return None
            parts.append(output.float().cpu())
    return torch.cat(parts).double().numpy() if parts else None


def _feature_network(file: str, normalisation: Normalisation) -> SqueezeNetFeatures:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SqueezeNetFeatures(normalisation).eval()
    if file != "random":
        network.load(file)
    return network


def _spread(image: Tensor) -> float:
    return spread(image.flatten(1).numpy())


def _probability_above(a: np.ndarray, b: np.ndarray) -> float:
    """Return the probability that a value of `a` is higher than a value of `b`; NaN if one is not finite."""
    label, value = np.repeat([1, 0], [len(a), len(b)]), np.concatenate([a, b])
    return auroc(label, value) if np.isfinite(value).all() else math.nan


def _overfitting(train: float, validation: float, fake: float) -> float:
    """Return r_v from the three mean outputs; 0 where `train` equals `fake`."""
    return float((train - validation) / (train - fake)) if train != fake else 0.0


def _ssim(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Return the SSIM [n] of each image [n, C, *S] in [-1, 1] and its reconstruction; NaN where a side is below 6."""
    if min(image.shape[2:]) <= SSIM_MARGIN:
        return torch.full((len(image),), math.nan)
    value = ssim(reconstruction, image, data_range=2.0, reduction="none")
    assert isinstance(value, Tensor)
    return value
