"""Two-class SVM between normals and the fake pool: the ablation of adGAN without its critic and concentration loss.

Shen, Chen, Wang, Zhang 2020, IEEE Access 8, table 5. The paper does not state features and kernel; here they are pixels
and a Gaussian kernel with C = 1.
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
    """Two phases: `gan`, the first phase of adGAN, fills the pool; `gather` collects normals for scikit-learn's SVM.

    The callback `fakepool` fills the pool during `gan` and sets `pool`.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels of generator and critic at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        n_critic: critic steps per iteration of `gan`, each on a fresh mini-batch.
        gp_weight: lambda, weight of the gradient penalty.
        gan_iterations: length of the phase `gan`.
        lr: learning rate of generator and critic.
        samples: number of images of each class; the solver's time grows with its square.
        batch_size: size of a mini-batch, from which the number of iterations of `gather` follows.
        cost: C, penalty of each image on the wrong side.
        gamma: 1 / (2 width²) of the kernel; None for 1 / (pixels · their variance).
        augment_d: augmentation of all images the critic sees in training.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.PoolSVM(patch_size=(32, 32), width=4, latent_dim=8, samples=1_000, batch_size=100)
        >>> for phase in detector.phases():
        ...     print(phase.name, phase.iterations)
        gan 200000
        gather 10
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
        if samples < batch_size:  # a mini-batch of normals would leave no room for the images of the pool
            raise ValueError(f"samples={samples}: must be at least batch_size, {batch_size}")
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
        networks = (self.generator, self.critic)
        return tuple(Adam(network.parameters(), self.settings.lr, betas=(0.0, 0.9)) for network in networks)

    def gan_step(self, batches: Tensor) -> None:
        """Take one critic step on each mini-batch of [n_critic, B, C, H, W], then one generator step."""
        for real in batches:  # algorithm 1 of adGAN, lines 2-6 with eq. 1
            self.step_optimizer("critic", self.critic_loss, real)
        self.step_optimizer("generator", self.generator_loss, real)  # lines 7-9; the callback `fakepool` does 10-12

    def gather(self, image: Tensor) -> None:
        """Gather normals up to `samples`: what is left of the bank is for as many images of the pool."""
        super().gather(image[: self.settings.samples - self.machine.gathered])

    def learn(self) -> None:
        """Add as many images of the pool as there are gathered normals, and fit the SVM that separates the two.

        Raises:
            UserError: there is no pool.
        """
        if self.pool is None:
            raise UserError("pool SVM needs a fake pool after its phase gan: give the experiment the callback fakepool")
        normals = self.machine.gathered
        fake = self.pool.draw(normals, self.device)  # the same on all ranks
        self.machine.gather(self.featured(fake))
        rows, p = self.machine.project(), self.settings
        gamma = p.gamma or scale(rows)
        label = [0] * normals + [1] * (len(rows) - normals)  # not len(fake): rows beyond the capacity are dropped
        svm = SVC(C=p.cost, kernel="rbf", gamma=gamma).fit(rows.cpu().numpy(), label)
        weights = torch.zeros(len(rows))
        weights[svm.support_] = torch.from_numpy(svm.dual_coef_[0]).float()
        # Decision function: Σ_i y_i alpha_i exp(-gamma |x - x_i|²) + b
        self.machine.learnt(weights, gamma, float(svm.intercept_[0]))
        self.track({"train/support_vectors": torch.tensor(float(len(svm.support_)))})

    def predict(self, image: Tensor) -> Prediction:
        """Score: the decision function, positive on the side of the pool."""
        return Prediction(self.machine(self.featured(image)).float())
