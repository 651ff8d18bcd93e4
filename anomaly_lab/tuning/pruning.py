"""Give up a training that finds fewer planted lesions than others did when they were as far."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.map_score import MAX_NORMALS
from anomaly_lab.evaluation.planted import Trial, rank
from anomaly_lab.experiment.config import ScoreRule

SHARES = (0.25, 0.5, 0.75)  # of the last phase, before which many a detector has no score
SEEDS = range(1)  # of the planting; a first look is cheap


class Watch(RunCallback):
    """Measures a detector while it trains by planted lesions, at most once an epoch, and reports it.

    Args:
        rule: the section `score`.
        at_most: number of validation normals.
        report: is told how many percent of the last phase are done, and the AUROC; it may raise what ends the training.

    Examples:
        >>> Watch(ScoreRule(), 10, lambda percent, auroc: print(percent, auroc)).changes_scores
        False
    """

    changes_scores = False

    def __init__(
        self,
        rule: ScoreRule | None = None,
        at_most: int = 100,
        report: Callable[[int, float], None] = lambda percent, auroc: None,
    ) -> None:
        self.rule, self.at_most, self.report = rule or ScoreRule(), at_most, report
        self._done = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        if not pl_module.ready:  # a phase that gathers images learns at its end
            return
        span = pl_module.schedule.span(pl_module.phases()[-1].name)
        share = (pl_module.iterations_done - span.start) / max(1, span.stop - span.start)
        passed = [each for each in SHARES if each <= share]
        if len(passed) <= self._done or share >= 1:
            return
        self._done = len(passed)
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by fit
        self.report(round(100 * passed[-1]), self._auroc(data, pl_module))

    def _auroc(self, data: PatchDataModule, detector: Detector) -> float:
        normals = torch.cat(list(data.images("val", self.at_most))).to(detector.device)
        detector.eval()  # the next training_step sets the modes it needs
        measured: Sequence[torch.Tensor] = ()
        if self.rule.measures:
            measured = [images.to(detector.device) for images in data.images("train", MAX_NORMALS)]
        with torch.random.fork_rng(), torch.no_grad():  # a search for a latent code draws numbers
            return rank({"": self.rule}, detector.score, Trial(normals, SEEDS), measured)[0].auroc
