"""Keep the weights of a supervised detector that predict the validation labels best."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.supervised import SupervisedDetector
from anomaly_lab.types import UserError

SMALLEST = 1e-7  # probability; a certain error would else be infinite


class BestValidation(RunCallback):
    """Restores, at the end of the phase `classifier`, the weights with the lowest loss on the validation labels.

    The loss is the mean negative log-likelihood of the known labels of the validation cases, of at most 512 normals and
    as many anomalous images (`val_dataloader`), measured at the end of every epoch and written to metrics.jsonl as
    `val/loss`. Of equal losses the earlier counts. The best weights so far are part of the checkpoint, so a resumed
    training makes the same choice. Test labels are never used.

    Examples:
        In an experiment's YAML file::

            callbacks:
              best_validation: {_target_: anomaly_lab.callbacks.best_validation.BestValidation}
    """

    changes_scores = True

    def __init__(self) -> None:
        self._best: dict[str, Any] = {}
        self._sums = torch.zeros(2, dtype=torch.float64)  # of losses, and their number

    def checkpoint_choice(self) -> dict[str, Any] | None:
        """Return rule, iteration and loss of the chosen epoch, and the last epoch's loss; None without any epoch."""
        choice = {key: value for key, value in self._best.items() if key != "weights"}
        return {"rule": "lowest loss on the validation labels", **choice} if choice else None

    def refuse(self, data: PatchDataModule, detector: Detector) -> None:
        if not isinstance(detector, SupervisedDetector):
            raise UserError(
                f"callbacks.best_validation: {type(detector).__name__} gives no class probabilities; set "
                "callbacks.best_validation=null"
            )

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, SupervisedDetector)
        losses = losses_of(outputs.probabilities, batch["target"], pl_module.settings.task).double().cpu()
        self._sums += torch.stack([losses.sum(), torch.tensor(len(losses), dtype=torch.float64)])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are the best so far; runs before the epoch's metrics are written."""
        assert isinstance(pl_module, SupervisedDetector)
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        if trainer.world_size > 1:
            sums = torch.as_tensor(trainer.strategy.reduce(sums.to(pl_module.device), reduce_op="sum")).cpu()
        span = pl_module.schedule.span(pl_module.selected_phase)
        if not sums[1] or not span.start < pl_module.iterations_done <= span.stop:
            return
        loss = float(sums[0] / sums[1])
        pl_module.track({"val/loss": torch.tensor(loss)})
        if loss < self._best.get("loss", float("inf")):
            networks = {name for phase in pl_module.phases() if phase.name == pl_module.selected_phase
                        for name in phase.networks}  # fmt: skip
            weights = {
                key: value.detach().cpu().clone()
                for key, value in pl_module.state_dict().items()
                if key.partition(".")[0] in networks
            }
            self._best = {"iteration": pl_module.iterations_done, "loss": loss, "weights": weights}
        self._best["last_loss"] = loss

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the best weights when the phase is over; runs before the epoch's checkpoint is written."""
        assert isinstance(pl_module, SupervisedDetector)
        if pl_module.iterations_done == pl_module.schedule.span(pl_module.selected_phase).stop:
            if "weights" not in self._best:
                why = "no validation case has a known label; raise data.split.val_fraction"
                if "last_loss" in self._best:  # it was nan, which is less than nothing
                    why = (
                        "the loss on the validation labels was never a number, the training diverged; lower detector.lr"
                    )
                raise UserError(f"callbacks.best_validation: {why} or set callbacks.best_validation=null")
            pl_module.load_state_dict({**pl_module.state_dict(), **self._best.pop("weights")})

    def state_dict(self) -> dict[str, Any]:
        return self._best

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = dict(state_dict)


def losses_of(probabilities: Tensor, target: Tensor, task: str) -> Tensor:
    """Return the negative log-likelihoods of the known targets, one for each.

    Args:
        probabilities: [B, K].
        target: [B, K]: 1 yes, 0 no, -1 unknown.
        task: `multiclass`, one class an image, or `multilabel`.

    Examples:
        >>> p = torch.tensor([[0.5, 0.25]])
        >>> [round(x, 3) for x in losses_of(p, torch.tensor([[1, 0]]), "multilabel").tolist()]  # log 2, -log .75
        [0.693, 0.288]
        >>> losses_of(p, torch.tensor([[-1, -1]]), "multilabel").tolist()
        []
    """
    if task == "multiclass":
        likelihood = probabilities[target == 1]
    else:
        known = target >= 0
        likelihood = torch.where(target == 1, probabilities, 1 - probabilities)[known]
    return -likelihood.clamp_min(SMALLEST).log()
