"""Watches a GAN: whether its discriminator learns by heart, its generator collapses, and how good its images became."""

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

MIN_DIVERSITY = 0.4  # of the reals' mean pairwise distance
CHUNK = 64  # images a network sees at once


class Health(RunCallback):
    """Compares fakes, training reals and held-out normals by their pixels, features and the discriminator's outputs.

    Every epoch in which the samples or the discriminator's outputs changed adds to metrics.jsonl, of `watched` images
    of each kind, all seen in eval mode and without augmentation, a term only where the detector has what it needs:

    - `health/real_above_fake`: chance that the discriminator's output is higher for a training image than for a fake;
      .5 it cannot tell, 1 it always can: the balance of the two.
    - `health/train_above_held_out`: the same of a training image and a held-out normal; towards 1 it knows by heart.
    - `health/overfitting`: (D(train) - D(held out)) / (D(train) - D(fake)), of means; 0 none, 1 as if held-out normals
      were fakes (Karras et al. 2020, r_v).
    - `health/diversity`: mean pairwise distance of fakes divided by that of training images.

    At the end provenance.json gets `health`: these; `collapsed`, whether diversity is below .4; FID and KID of as many
    fakes as training images, over the pooled features of SqueezeNet 1.0; of held-out normals and their reconstructions,
    the mean SSIM and squared error. Nothing of it uses a label of the test split.

    Args:
        watched: most images of each kind, every epoch.
        samples: most fakes and most training images, at the end.
        features: file of torchvision's squeezenet1_0 weights; `random` draws them, always the same: the figures then
            compare runs on one data set and nothing else.
        features_input: what these weights expect, see networks.pretrained.
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
            raise ValueError("callbacks.health: watched and samples start at 2")
        if features != "random" and not Path(features).is_file():
            raise UserError(f"callbacks.health.features={features}: no such file; give squeezenet1_0's, or random")
        self.watched, self.samples = watched, samples
        self.features, self.features_input = features, features_input
        self._images: dict[str, Tensor] = {}
        self._last: dict[str, float] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = data_of(trainer)
        self._images = {split: _some(data, split, self.watched) for split in ("train", "val")}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Scoring is over and the record of the epoch not yet written."""
        assert isinstance(pl_module, Detector)
        terms = self._look(pl_module)
        if terms != self._last:  # both networks may be frozen in this phase
            pl_module.track({f"health/{name}": torch.tensor(value) for name, value in terms.items()})
        self._last = terms

    def scored_columns(self, data: PatchDataModule, batch: Batch, scored: Scored) -> Columns:
        """SSIM and squared error of each reconstruction of a validation normal, NaN for test cases."""
        if scored.reconstruction is None:
            return {}
        validation = np.isin(batch["row"].cpu(), data.rows["val"])
        columns = {name: np.full(len(validation), np.nan) for name in ("ssim", "reconstruction_error")}
        if validation.any():
            image = batch["image"].cpu().float()[validation]
            copy = torch.from_numpy(scored.reconstruction[validation])
            columns["ssim"][validation] = _ssim(copy, image)
            columns["reconstruction_error"][validation] = (image - copy).square().flatten(1).mean(1)
        return columns

    def on_scored(self, run: Path, data: PatchDataModule, detector: Detector, scored: Columns) -> None:
        facts = self._look(detector) | self._quality(detector, _some(data, "train", self.samples))
        facts |= _reconstruction(data, scored)
        if facts:
            update_provenance(run, health=facts)

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last = state_dict["last"]

    def _look(self, detector: Detector) -> dict[str, float]:
        """The terms of an epoch."""
        found: dict[str, float] = {}
        fake = _sample(detector, self.watched)
        train, held_out = (self._images[split] for split in ("train", "val"))
        if fake is not None:
            found["diversity"] = _spread(fake) / _spread(train)
        real, others = _discriminator_output(detector, train), _discriminator_output(detector, held_out)
        if real is not None and others is not None:
            found["train_above_held_out"] = _above(real, others)
        fakes = None if fake is None else _discriminator_output(detector, fake)
        if real is not None and fakes is not None:
            found["real_above_fake"] = _above(real, fakes)
        if real is not None and others is not None and fakes is not None:
            found["overfitting"] = _overfitting(real.mean(), others.mean(), fakes.mean())
        return found

    def _quality(self, detector: Detector, real: Tensor) -> dict[str, Any]:
        """FID, KID and the verdict on collapse, with what they were made of; empty where nothing can be sampled."""
        fake = _sample(detector, len(real))
        if fake is None:
            return {}
        network = _feature_network(self.features, self.features_input)
        with torch.no_grad():
            x, y = (torch.cat([network(part) for part in torch.split(image, CHUNK)]).numpy() for image in (real, fake))
        return {
            "collapsed": _spread(fake) < MIN_DIVERSITY * _spread(real),
            "fid": frechet_distance(x, y),
            "kid": kernel_distance(x, y),
            "images": len(real),
            "features": "SqueezeNet 1.0, " + ("random weights" if self.features == "random" else "weights of a file"),
        }


def _reconstruction(data: PatchDataModule, scored: Columns) -> dict[str, Any]:
    """Mean SSIM and squared error of the reconstructed validation normals, and their number; empty without any."""
    if "ssim" not in scored or not len(data.rows["val"]):
        return {}
    validation = np.isin(scored["row"], data.rows["val"])
    means = {name: float(scored[name][validation].mean()) for name in ("ssim", "reconstruction_error")}
    return means | {"held_out": int(validation.sum())}


def _some(data: PatchDataModule, split: str, at_most: int) -> Tensor:
    """Images of a split, chosen by the seed, [n, C, *S]; the same every time."""
    parts = list(data.images(split, at_most=at_most))
    return torch.cat(parts) if parts else torch.zeros(0)  # nothing may be held out


def _sample(detector: Detector, n: int) -> Tensor | None:
    """Images of always the same noise, [n, C, *S], on the processor."""
    with torch.no_grad():
        fake = detector.eval().sample(n, torch.Generator().manual_seed(0))
    return None if fake is None else fake.float().cpu()


def _discriminator_output(detector: Detector, image: Tensor) -> np.ndarray | None:
    """What the discriminator says of images, [n]; None where there is none of either."""
    said = []
    with torch.no_grad(), torch.autocast(detector.device.type, enabled=False):
        for part in torch.split(image, CHUNK) if len(image) else ():
            discriminator_output = detector.eval().discriminator_output(part.to(detector.device))
            if discriminator_output is None:
                return None
            said.append(discriminator_output.float().cpu())
    return torch.cat(said).double().numpy() if said else None


def _feature_network(file: str, normalisation: Normalisation) -> SqueezeNetFeatures:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SqueezeNetFeatures(normalisation).eval()
    if file != "random":
        network.load(file)
    return network


def _spread(image: Tensor) -> float:
    return spread(image.flatten(1).numpy())


def _above(one: np.ndarray, other: np.ndarray) -> float:
    """Chance that a member of `one` is higher than one of `other`."""
    label = np.repeat([1, 0], [len(one), len(other)])
    return auroc(label, np.concatenate([one, other]))


def _overfitting(train: float, held_out: float, fake: float) -> float:
    """r_v of means; 0 where the discriminator says the same of all."""
    return float((train - held_out) / (train - fake)) if train != fake else 0.0


def _ssim(copy: Tensor, image: Tensor) -> Tensor:
    """Of each image [n, C, *S] in [-1, 1] with its copy, [n]."""
    value = ssim(copy, image, data_range=2.0, reduction="none")
    assert isinstance(value, Tensor)
    return value
