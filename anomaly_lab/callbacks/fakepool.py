"""Fills the fake pool while a generator learns, and hands it to the detector that is trained against it."""

import math
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.callbacks.samples import grid, png
from anomaly_lab.data.datamodule import data_of
from anomaly_lab.detectors.families import fake_pool
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.fake_pool import PHASE, DrawsFromPool, Pool
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.types import Count, UserError

ROWS, COLUMNS = 10, 16  # of its picture


class FakePool(RunCallback):
    """Keeps `count` fresh images of every `every`-th iteration of the phase `gan`, the first included.

    They are drawn in training mode, as the critic sees them, by all ranks: image i of a draw is the work of rank
    i modulo their number. A resumed run forgets what came after its checkpoint and draws it again, to the same bytes.
    The pool is complete, and the detector's, when the next phase begins.

    Args:
        every: iterations between two draws (k of the paper).
        count: images of a draw, over all ranks (n).
    """

    changes_scores = True  # it draws from the global generator, and the pool is what some detectors learn from

    def __init__(self, every: Count = 100, count: Count = 64) -> None:
        if every < 1 or count < 1:
            raise ValueError("callbacks.fakepool: every and count start at 1")
        self.every, self.count = every, count
        self._folder = Path()

    def size(self, iterations: int) -> int:
        """Images after so many iterations of the phase: ⌈iterations / every⌉ · count."""
        return math.ceil(iterations / self.every) * self.count

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        run = trainer.strategy.broadcast(str(trainer.default_root_dir))  # only the first rank knows the run folder
        self._folder = Path(run) / fake_pool.FOLDER
        if trainer.is_global_zero:
            self._prepare(trainer, pl_module)
        trainer.strategy.barrier()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        filled = pl_module.iterations_done >= pl_module.schedule.span(PHASE).stop
        if filled and isinstance(pl_module, DrawsFromPool) and pl_module.pool is None:
            trainer.strategy.barrier()  # another rank may still be writing
            pl_module.pool = Pool(self._folder)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, Detector)
        span, iteration = pl_module.schedule.span(PHASE), pl_module.iterations_done - 1
        if iteration in span and (iteration - span.start) % self.every == 0:
            first = self.size(iteration - span.start)
            places = range(first, first + self.count)[trainer.global_rank :: trainer.world_size]
            self._draw(pl_module, places)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write samples/fakepool.png, the pool over time."""
        trainer.strategy.barrier()
        if trainer.is_global_zero and self._folder.exists():
            pool = Pool(self._folder)
            places = _rows_over_time(pool.iterations)
            fake = torch.from_numpy(pool.images[places.ravel()]).float().div(127.5).sub(1)
            said = ",".join(map(str, pool.iterations[places[:, 0]]))
            picture = png(grid(fake, places.shape[1]), iterations=said)
            write_atomic(Path(trainer.default_root_dir) / "samples" / "fakepool.png", picture)

    def _prepare(self, trainer: pl.Trainer, detector: Detector) -> None:
        """An empty pool for a fresh training, and of a resumed one's what its checkpoint knows of."""
        folder, span, done = self._folder, detector.schedule.span(PHASE), detector.iterations_done
        if span and done == 0:
            data = data_of(trainer)
            fake_pool.create(folder, self.size(len(span)), (data.in_channels, *data.patch_size))
        elif span:
            left, expected = fake_pool.keep_until(folder, done), self.size(min(done, span.stop) - span.start)
            if left != expected:
                raise UserError(
                    f"{folder} holds {left} images where callbacks.fakepool makes {expected}: train anew, or set "
                    "every and count as in the run it was taken from"
                )

    def _draw(self, detector: Detector, places: range) -> None:
        if places:
            with torch.no_grad():
                fake = detector.sample(len(places))  # training mode: the step that has just been done needed it
            if fake is None:
                raise UserError(f"callbacks.fakepool: {type(detector).__name__} cannot generate; set it to null")
            fake_pool.write(self._folder, places, fake, detector.iterations_done)


def _rows_over_time(iterations: np.ndarray) -> np.ndarray:
    """Places [rows, columns] of a picture of the pool: the first and the last draw, between them ever longer steps."""
    draws = np.unique(iterations, return_index=True)[1]
    chosen = np.unique(np.geomspace(1, len(draws), min(ROWS, len(draws))).round().astype(int)) - 1
    return draws[chosen, None] + np.arange(min(COLUMNS, len(iterations) // len(draws)))
