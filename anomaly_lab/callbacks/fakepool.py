"""Fill the fake pool while the generator trains, and pass it to a detector that trains on it."""

import math
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.callbacks.samples import grid, png
from anomaly_lab.data.datamodule import PatchDataModule, data_of
from anomaly_lab.detectors.families import fake_pool
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.fake_pool import PHASE, DrawsFromPool, Pool
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.types import Count, UserError

ROWS, COLUMNS = 10, 16  # of the overview picture samples/fakepool.png


class FakePool(RunCallback):
    """Stores `count` generated images at the first and then every `every`-th iteration of the phase `gan`.

    Images are generated in training mode, as the critic sees them. Every process generates all images of a draw, and
    the first one writes them: no file has two writers, and the pool is that of a single process. A resumed run discards
    the images drawn after its checkpoint and draws them again, with identical bytes. When the next phase begins the
    pool is complete, and a detector that trains on it (`DrawsFromPool`) receives it.

    Args:
        every: iterations between two draws (k of adGAN's paper).
        count: images per draw (n of the paper).

    Examples:
        >>> FakePool(every=100, count=64).size(iterations=250)  # drawn at iterations 1, 101 and 201
        192
    """

    changes_scores = True  # it draws from the global random generator, and some detectors train on the pool

    def __init__(self, every: Count = 100, count: Count = 64) -> None:
        if every < 1 or count < 1:
            raise ValueError(f"callbacks.fakepool: every={every} and count={count} must be at least 1")
        self.every, self.count = every, count
        self._folder = Path()

    def size(self, iterations: int) -> int:
        """Return the number of images after `iterations` of the phase: ⌈iterations / every⌉ · count."""
        return math.ceil(iterations / self.every) * self.count

    def refuse(self, data: PatchDataModule, detector: Detector) -> None:
        if type(detector).sample is Detector.sample:
            raise UserError(
                f"callbacks.fakepool: {type(detector).__name__} cannot generate images; set callbacks.fakepool=null"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        self._folder = Path(trainer.default_root_dir) / fake_pool.FOLDER
        if trainer.is_global_zero:
            self._prepare(trainer, pl_module)
        trainer.strategy.barrier()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        filled = pl_module.iterations_done >= pl_module.schedule.span(PHASE).stop
        if filled and isinstance(pl_module, DrawsFromPool) and pl_module.pool is None:
            trainer.strategy.barrier()  # the first process may still be writing
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
            self._draw(trainer, pl_module, range(first, first + self.count))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write samples/fakepool.png: a row of images per selected draw, from the first draw to the last."""
        if trainer.is_global_zero and self._folder.exists():
            pool = Pool(self._folder)
            places = _rows_over_time(pool.iterations)
            fake = torch.from_numpy(pool.images[places.ravel()]).float().div(127.5).sub(1)
            iterations = ",".join(map(str, pool.iterations[places[:, 0]]))
            picture = png(grid(fake, places.shape[1]), iterations=iterations)
            write_atomic(Path(trainer.default_root_dir) / "samples" / "fakepool.png", picture)

    def _prepare(self, trainer: pl.Trainer, detector: Detector) -> None:
        """Create an empty pool for a new training; cut a resumed training's pool back to its checkpoint."""
        folder, span, done = self._folder, detector.schedule.span(PHASE), detector.iterations_done
        if span and done == 0:
            data = data_of(trainer)
            fake_pool.create(folder, self.size(len(span)), (data.in_channels, *data.patch_size))
        elif span:
            kept, expected = fake_pool.keep_until(folder, done), self.size(min(done, span.stop) - span.start)
            if kept != expected:
                raise UserError(
                    f"{folder} holds {kept} images, but callbacks.fakepool with every={self.every} and "
                    f"count={self.count} needs {expected}: set every and count as in the run that made the pool, or "
                    "start a new training"
                )

    def _draw(self, trainer: pl.Trainer, detector: Detector, places: range) -> None:
        with torch.no_grad():
            fake = detector.sample(len(places))  # the step just done has left the networks in training mode
        assert fake is not None  # see `refuse`
        if trainer.is_global_zero:
            fake_pool.write(self._folder, places, fake, detector.iterations_done)


def _rows_over_time(iterations: np.ndarray) -> np.ndarray:
    """Return the pool indices [rows, columns] to show: first draw, last draw, and draws in growing steps between."""
    draws = np.unique(iterations, return_index=True)[1]
    chosen = np.unique(np.geomspace(1, len(draws), min(ROWS, len(draws))).round().astype(int)) - 1
    return draws[chosen, None] + np.arange(min(COLUMNS, len(iterations) // len(draws)))
