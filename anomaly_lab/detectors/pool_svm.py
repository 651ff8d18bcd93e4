"""Two-class SVM between normals and the fake pool: adGAN's ablation without its critic and concentration loss.

Shen, Chen, Wang, Zhang 2020, IEEE Access 8, table 5. Features and kernel are not stated there: pixels, Gaussian, C 1.
"""

import math
from typing import Annotated

import torch
from sklearn.svm import SVC
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.fake_pool import Pool
from anomaly_lab.detectors.families.gan import WassersteinDetector
from anomaly_lab.detectors.families.kernel import FeatureBankDetector
from anomaly_lab.networks.adgan import AdGANCritic, AdGANGenerator
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.networks.features import Pixels
from anomaly_lab.networks.kernels import scale
from anomaly_lab.types import (
    Channels,
    CodeLength,
    Count,
    Iterations,
    Phase,
    Prediction,
    Range,
    Rate,
    Square,
    UserError,
    Weight,
    Width,
)


class PoolSVM(FeatureBankDetector, WassersteinDetector):
    """Two phases: `gan` is adGAN's first and fills the pool, `gather` collects normals for scikit-learn's SVM.

    Args:
        patch_size: side of the square image, a power of two >= 8, twice.
        in_channels: 1 or 3.
        width: channels of generator and critic at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        n_critic: critic steps an iteration of `gan`, each on a fresh mini-batch.
        gp_weight: lambda of the gradient penalty.
        gan_iterations: length of the phase `gan`.
        lr: learning rate of generator and critic.
        samples: images of either class; a solver's time grows with the square of it.
        batch_size: of a mini-batch, which tells how many iterations gathering them takes.
        cost: C, of each image on the wrong side.
        gamma: 1 / (2 width²) of the kernel; None for 1 / (pixels · their variance).
        augment_d: what is done to all images the critic sees, in training.
    """

    networks = ("generator", "critic", "machine")
    pool: Pool | None = None

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (32, 32),
        in_channels: Channels = 1,
        width: Width = 64,
        latent_dim: CodeLength = 128,
        n_critic: Annotated[int, Range("[1, 1000]")] = 5,
        gp_weight: Weight = 10.0,
        gan_iterations: Iterations = 200_000,
        lr: Rate = 1e-4,
        samples: Count = 10_000,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
        cost: Annotated[float, Range("(0, 1000000]")] = 1.0,
        gamma: Annotated[float, Range("(0, 1000000]")] | None = None,
        augment_d: AugmentD = "none",
    ) -> None:
        if samples < batch_size:  # a mini-batch of normals would leave the pool's images no room
            raise ValueError(f"samples={samples}: takes at least a mini-batch, {batch_size}")
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.generator = AdGANGenerator(latent_dim, in_channels, patch_size, width)
        self.critic = AdGANCritic(in_channels, patch_size, width)
        self.assemble(Pixels(in_channels * math.prod(patch_size)), 2 * samples)

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        gan = Phase("gan", p.gan_iterations, ("generator", "critic"), minibatches=p.n_critic)
        return (gan, *super().phases())

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        moved = (self.generator, self.critic)
        return tuple(Adam(network.parameters(), self.settings.lr, betas=(0.0, 0.9)) for network in moved)

    def gan_step(self, batches: Tensor) -> None:
        """The critic moves once on each mini-batch of [n_critic, B, C, H, W], then the generator once."""
        for real in batches:
            self.step_optimizer("critic", self.critic_loss, real)
        self.step_optimizer("generator", self.generator_loss, real)

    def learn(self) -> None:
        """As many images of the pool join the gathered normals, then the SVM learns to tell them apart.

        Raises:
            UserError: there is no pool.
        """
        if self.pool is None:
            raise UserError("pool SVM needs a fake pool after its phase gan: give the experiment the callback fakepool")
        normals = int(self.machine.count)
        share = self.pool.draw(math.ceil(normals / self.trainer.world_size)).to(self.device)
        fake = torch.as_tensor(self.all_gather(share)).reshape(-1, *share.shape[1:])[:normals]
        self.machine.gather(self.featured(fake))
        rows, p = self.machine.project(), self.settings
        gamma = p.gamma or scale(rows)
        called = [0] * normals + [1] * (len(rows) - normals)  # not len(fake): whole batches may overfill the room
        svm = SVC(C=p.cost, kernel="rbf", gamma=gamma).fit(rows.cpu().numpy(), called)
        weights = torch.zeros(len(rows))
        weights[svm.support_] = torch.from_numpy(svm.dual_coef_[0]).float()
        self.machine.learnt(weights, gamma, float(svm.intercept_[0]))
        self.track({"train/support_vectors": torch.tensor(float(len(svm.support_)))})

    def predict(self, image: Tensor) -> Prediction:
        """Score: the decision function, positive on the pool's side."""
        return Prediction(self.machine(self.featured(image)).float())
