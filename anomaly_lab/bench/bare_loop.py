"""f-AnoGAN's training loop in plain PyTorch: the reference that `make bench` measures the framework against."""

import torch
from omegaconf import DictConfig
from torch import Tensor

from anomaly_lab.detectors.fanogan import FAnoGAN
from anomaly_lab.experiment import config as configuration
from anomaly_lab.losses.adversarial import wasserstein_critic_loss, wasserstein_generator_loss
from anomaly_lab.losses.gradient_penalty import gradient_penalty


class BareLoop:
    """f-AnoGAN's training steps in plain PyTorch, on the networks and optimizers of the framework's detector.

    Args:
        settings: a composed configuration whose `detector` is f-AnoGAN.
        precision: "fp32", or "bf16" for autocast on the CPU.

    Examples:
        >>> small = ["budget=smoke", "data.patch_size=[32,32]", "detector.width=2", "detector.latent_dim=4"]
        >>> loop = BareLoop(configuration.load("fanogan_headct", small), precision="fp32")
        >>> loop.gan(torch.zeros(2, 4, 1, 32, 32))  # two critic steps on four images each, one generator step
        >>> loop.encoder(torch.zeros(1, 4, 1, 32, 32))  # one encoder step
    """

    def __init__(self, settings: DictConfig, precision: str) -> None:
        torch.manual_seed(0)
        self.detector: FAnoGAN = configuration.build(settings.detector)
        self.detector.to(memory_format=torch.channels_last)
        self.low = precision == "bf16"
        self.g, self.c, self.e = self.detector.generator, self.detector.critic, self.detector.encoder
        self.optimizer_g, self.optimizer_c, self.optimizer_e = self.detector.configure_optimizers()

    def gan(self, batches: Tensor) -> None:
        """Run one iteration of the phase `gan`: a critic step per mini-batch, then one generator step.

        Args:
            batches: [n_critic, B, C, H, W] in [-1, 1].
        """
        self.g.requires_grad_(False)
        self.c.requires_grad_(True)
        for real in batches:
            with self._autocast():
                with torch.no_grad():
                    fake = self.g(self.detector.noise(len(real)))
                loss = wasserstein_critic_loss(self.c(real), self.c(fake)) + 10 * gradient_penalty(self.c, real, fake)
            self._step(self.optimizer_c, loss)
        self.g.requires_grad_(True)
        self.c.requires_grad_(False)
        with self._autocast():
            loss = wasserstein_generator_loss(self.c(self.g(self.detector.noise(len(real)))))
        self._step(self.optimizer_g, loss)

    def encoder(self, batches: Tensor) -> None:
        """Run one encoder step per mini-batch, generator and critic frozen.

        Args:
            batches: [n, B, C, H, W] in [-1, 1].
        """
        self.g.eval().requires_grad_(False)
        self.c.eval().requires_grad_(False)
        for image in batches:
            with self._autocast():
                pixel, feature, _ = self.detector.residuals(image)
                loss = (pixel + feature).mean()
            self._step(self.optimizer_e, loss)
        self.g.train()
        self.c.train()

    def distance(self, real: Tensor) -> None:
        """Run a critic step without the gradient penalty, on images [B, C, H, W]."""
        self.c.requires_grad_(True)
        with self._autocast():
            with torch.no_grad():
                fake = self.g(self.detector.noise(len(real)))
            loss = wasserstein_critic_loss(self.c(real), self.c(fake))
        self._step(self.optimizer_c, loss)

    def penalty(self, real: Tensor) -> None:
        """Run a critic step on the gradient penalty alone, on images [B, C, H, W]."""
        self.c.requires_grad_(True)
        self._step(self.optimizer_c, gradient_penalty(self.c, real, real.flip(0)))

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.low)

    @staticmethod
    def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
