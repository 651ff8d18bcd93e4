"""`make bench SECTION=hq`: HQ-AnoGAN at 64×64, its Trainer against a bare loop, and what each part of a step costs."""

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from anomaly_lab.bench.turns import Times, interleaved
from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.detectors.families.gan import ADAPT_EVERY
from anomaly_lab.detectors.hq_anogan import PATH_DECAY, PATH_EVERY, R1_EVERY, HQAnoGAN
from anomaly_lab.devices import precision_for
from anomaly_lab.experiment import config as configuration
from anomaly_lab.losses.stylegan2 import path_lengths, r1_penalty
from anomaly_lab.networks import stylegan2
from anomaly_lab.networks.augmentation import ADA
from anomaly_lab.pipeline import training
from anomaly_lab.pipeline.console import quiet_lightning
from anomaly_lab.types import Batch

SCORED = 64  # images
TRAINER, BARE = "hq: iteration by Trainer", "hq: iteration by bare loop"
WHOLE = "hq: gan step"  # of G and D, with style mixing and ADA, without penalties


def settings(words: Sequence[str] = ()) -> DictConfig:
    """Return HQ-AnoGAN at the laptop budget and 64×64, with the regularisers and the constant rate of the publication.

    Args:
        words: `key=value` words.

    Examples:
        >>> settings(["data.batch_size=2"]).detector.mixing
        0.9
    """
    whole = [
        "data.patch_size=[64,64]",
        "detector.path_weight=2",
        "detector.mixing=0.9",
        "detector.augment_p=null",
        "detector.anneal=0",
    ]
    start = ["budget=laptop", "data.source=twin", "trainer.accelerator=cpu", "callbacks.wandb=null"]
    return configuration.load("hq_anogan_headct", [*start, *whole, *words])


def measure(chosen: DictConfig, rounds: int) -> Times:
    """Time iterations by the Trainer and by a bare loop (CPU seconds), the parts of a step, and scoring.

    Args:
        chosen: the experiment, as from `settings`.
        rounds: timed rounds, after one to warm up.
    """
    image = torch.rand(chosen.data.batch_size, chosen.data.in_channels, *chosen.data.patch_size) * 2 - 1
    with quiet_lightning():
        iterations = _iterations(chosen, image, rounds)
    return iterations | interleaved(_parts(chosen, image), rounds)


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """Return the framework's share and the cost of each part of an iteration, in per cent of its step of G and D.

    Args:
        seconds: medians by name.

    Examples:
        >>> ratios({TRAINER: 1.02, BARE: 1.0})
        {'hq: Trainer over bare loop': 1.02}
    """
    found = {}
    if TRAINER in seconds:
        found["hq: Trainer over bare loop"] = seconds[TRAINER] / seconds[BARE]
    if (step := seconds.get(f"{WHOLE} fp32")) is not None:
        found["bf16 over fp32, hq: gan step"] = step / seconds[f"{WHOLE} bf16"]
        costs = {
            f"R1, every {R1_EVERY}": seconds["hq: R1 step"] / R1_EVERY,
            f"path length, every {PATH_EVERY}": seconds["hq: path length step"] / PATH_EVERY,
            "style mixing": step - seconds[f"{WHOLE} without mixing"],
            "ADA": step - seconds[f"{WHOLE} without ADA"],
        }
        found |= {f"hq: {name}, % of a gan step": 100 * cost / step for name, cost in costs.items()}
    return found


def speeds(seconds: dict[str, float]) -> dict[str, float]:
    """Return images per second of scoring.

    Examples:
        >>> speeds({"hq: score": 0.5})
        {'hq: score': 128.0}
    """
    return {name: SCORED / seconds[name] for name in ("hq: score",) if name in seconds}


class BareStyleGAN:
    """Phase `gan` in plain PyTorch, on the networks, augmentation and optimizers of the framework's detector.

    Args:
        chosen: a composed configuration whose `detector` is HQ-AnoGAN.
        precision: "fp32", or "bf16" for autocast on the CPU.

    Examples:
        >>> loop = BareStyleGAN(settings(["detector.width=2", "detector.channel_cap=4"]), "fp32")
        >>> loop.iteration(torch.zeros(2, 1, 64, 64), 0)  # G, path length, D, R1, average
    """

    def __init__(self, chosen: DictConfig, precision: str) -> None:
        torch.manual_seed(0)
        self.detector: HQAnoGAN = configuration.build(chosen.detector)
        self.detector.to(memory_format=torch.channels_last)
        self.low = precision == "bf16"
        self.g, self.d, self.augmented = (
            self.detector.generator,
            self.detector.discriminator,
            self.detector.augmentation,
        )
        self.optimizer_g, self.optimizer_d, _ = self.detector.configure_optimizers()

    def iteration(self, real: Tensor, i: int) -> None:
        """Run iteration i of the phase on images [B, C, H, W]."""
        p = self.detector.settings
        self.step_g(real)
        if p.path_weight and i % PATH_EVERY == 0:
            self.step_path(real)
        self.step_d(real)
        if self.detector.r1_weight and i % R1_EVERY == 0:
            self.step_r1(real)
        stylegan2.follow(self.detector.averages, self.g, self.detector.average_decay((i + 1) * p.batch_size))
        if isinstance(self.augmented, ADA) and (i + 1) % ADAPT_EVERY == 0:
            self.augmented.adapt(ADAPT_EVERY / p.gan_iterations)

    def step(self, real: Tensor) -> None:
        """Take a step of G and one of D."""
        self.step_g(real)
        self.step_d(real)

    def step_g(self, real: Tensor) -> None:
        self._only(self.g)
        with self._autocast():
            fake = self.g.synthesis(self._styles(len(real)), "random")
            loss = F.softplus(-self.d(self.augmented(fake)[0]).float()).mean()
        self._descend(self.optimizer_g, loss)

    def step_d(self, real: Tensor) -> None:
        self._only(self.d)
        with self._autocast():
            with torch.no_grad():
                fake = self.g.synthesis(self._styles(len(real)), "random")
            logit = self.d(self.augmented(real)[0]).float()
            loss = F.softplus(-logit).mean() + F.softplus(self.d(self.augmented(fake)[0]).float()).mean()
            self.augmented.track(logit.detach().sign())
        self._descend(self.optimizer_d, loss)

    def step_path(self, real: Tensor) -> None:
        """Take a step of G on the path length penalty."""
        self._only(self.g)
        styles = self._styles(len(real))[: max(1, len(real) // 2)]
        lengths = path_lengths(lambda w: self.g.synthesis(w, "random"), styles)
        mean = self.g.path_length.lerp(lengths.detach().mean(), PATH_DECAY)
        self.g.path_length.copy_(mean)
        loss = (lengths - mean).square().mean() * self.detector.settings.path_weight * PATH_EVERY
        self._descend(self.optimizer_g, loss)

    def step_r1(self, real: Tensor) -> None:
        """Take a step of D on the R1 penalty."""
        self._only(self.d)
        loss = r1_penalty(self.d, self.augmented(real)[0]) * self.detector.r1_weight / 2 * R1_EVERY
        self._descend(self.optimizer_d, loss)

    def _styles(self, n: int) -> Tensor:
        w = self.g.mapping(self.detector.noise(n))
        self.g.mapping.follow(w.mean(0))
        styles: Tensor = self.g.styles(w)
        if not (mixing := self.detector.settings.mixing):
            return styles
        return stylegan2.mixed(styles, self.g.styles(self.g.mapping(self.detector.noise(n))), mixing)

    def _only(self, network: torch.nn.Module) -> None:
        """Let this network alone get gradients."""
        for each in (self.g, self.d):
            each.requires_grad_(each is network)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.low)

    @staticmethod
    def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


class _Clock(pl.Callback):
    """CPU seconds of the training."""

    seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = -time.process_time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds += time.process_time()


def _iterations(chosen: DictConfig, image: Tensor, rounds: int) -> Times:
    """Time as many iterations as have every penalty; CPU seconds of one."""
    times: Times = {TRAINER: [], BARE: []}
    batches: Any = [Batch(image=image[None])] * R1_EVERY

    def by_trainer() -> None:
        _, detector = training.construct(chosen)
        clock = _Clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = training.trainer_for(chosen.trainer, Path(folder), [Randomness(0), clock], 1, limit_val_batches=0)
            trainer.fit(detector, DataLoader(batches, batch_size=None))
        times[TRAINER].append(clock.seconds / R1_EVERY)

    def bare() -> None:
        loop = BareStyleGAN(chosen, "bf16" if precision_for(chosen.trainer.precision) == "bf16-mixed" else "fp32")
        start = time.process_time()
        for i in range(R1_EVERY):
            loop.iteration(image, i)
        times[BARE].append((time.process_time() - start) / R1_EVERY)

    interleaved({TRAINER: by_trainer, BARE: bare}, rounds)
    return {name: seconds[1:] for name, seconds in times.items()}


def _parts(chosen: DictConfig, image: Tensor) -> dict[str, Callable[[], object]]:
    """Return a step of G and D in two precisions and without each regulariser, the penalties' steps, and scoring."""

    def without(**changes: Any) -> BareStyleGAN:
        changed = copy.deepcopy(chosen)
        changed.detector |= changes
        return BareStyleGAN(changed, "fp32")

    fp32, bf16 = (BareStyleGAN(chosen, precision) for precision in ("fp32", "bf16"))
    scored = image[torch.arange(SCORED) % len(image)]
    return {
        f"{WHOLE} fp32": partial(fp32.step, image),
        f"{WHOLE} bf16": partial(bf16.step, image),
        f"{WHOLE} without mixing": partial(without(mixing=0.0).step, image),
        f"{WHOLE} without ADA": partial(without(augment_d="none").step, image),
        "hq: R1 step": partial(fp32.step_r1, image),
        "hq: path length step": partial(fp32.step_path, image),
        "hq: score": partial(fp32.detector.score, Batch(image=scored)),
    }
