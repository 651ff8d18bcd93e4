"""Support vector data description: the smallest sphere that encloses all but a fraction nu of the normals.

Tax, Duin 2004, Machine Learning 54, 45-66. R, c and nu as in the paper (there C = 1 / (nu · images)). With a Gaussian
kernel the problem is that of the one-class SVM; with a linear kernel it is a sphere in feature space.
"""

from typing import Annotated, Literal

import torch
from sklearn.svm import OneClassSVM
from torch import Tensor

from anomaly_lab.detectors.families.kernel import FeatureBankDetector, FeatureName, features_of
from anomaly_lab.networks.kernels import scale, squared_distances
from anomaly_lab.types import Channels, Count, Iterations, Prediction, Range


class SVDD(FeatureBankDetector):
    """One phase, `gather`, at whose end scikit-learn's one-class SVM solves the problem; kept as support vectors.

    Args:
        patch_size: height and width of the image; for the features `code` equal, a power of two >= 32.
        in_channels: 1 or 3.
        features, weights, components, feature_iterations, samples, batch_size: as for FeatureBankDetector. All samples²
            kernel values are held in memory, 0.8 GB for 10 000.
        kernel: `linear` or `rbf`.
        nu: fraction of the normals left outside the sphere.
        gamma: 1 / (2 width²) of the Gaussian kernel; None for 1 / (features · their variance).

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.SVDD(patch_size=(1, 1), samples=2, nu=0.9)
        >>> detector.machine.gather(torch.tensor([[0.0], [1.0]]))
        >>> detector.learn()
        >>> detector.predict(torch.tensor([[[[1.0]]]])).anomaly_score.item()  # pixel 1, centre 1/2
        0.25
    """

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Range("[1, 2048]")] = (32, 32),
        in_channels: Channels = 1,
        features: FeatureName = "pixels",
        weights: str = "",
        components: Annotated[int, Range("[0, 65536]")] = 0,
        feature_iterations: Iterations = 10_000,
        samples: Count = 5_000,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
        kernel: Literal["linear", "rbf"] = "linear",
        nu: Annotated[float, Range("(0, 1)")] = 0.1,
        gamma: Annotated[float, Range("(0, 1000000]")] | None = None,
    ) -> None:
        if not 0 < nu < 1:
            raise ValueError(f"detector.nu={nu}: must be a fraction of the normals between 0 and 1")
        super().__init__()
        self.save_hyperparameters()
        self.assemble(features_of(features, patch_size, in_channels), samples, components)

    def learn(self) -> None:
        """Compute the centre c = Σ_i alpha_i φ(x_i), with Σ_i alpha_i = 1.

        The dual problem of the paper, max Σ_i alpha_i k_ii - Σ_ij alpha_i alpha_j k_ij, is equivalent to min ½ alphaᵀ K
        alpha with K_ij = -|φ_i - φ_j|², because the alphas sum to 1: a one-class SVM with that kernel.
        """
        p, rows = self.settings, self.machine.project()
        gamma = p.gamma or scale(rows)
        distances = squared_distances(rows, rows)
        kernel = (-gamma * distances).exp() if p.kernel == "rbf" else None
        if kernel is not None:
            distances = 2 - 2 * kernel  # |φ_i - φ_j|²
        matrix = -distances / distances.mean().clamp_min(1e-12)  # scaled, because the solver's tolerance is absolute
        svm = OneClassSVM(kernel="precomputed", nu=p.nu, tol=1e-4).fit(matrix.cpu().numpy())
        alpha = torch.zeros(len(rows), dtype=rows.dtype)
        alpha[svm.support_] = torch.from_numpy(svm.dual_coef_[0]).to(rows.dtype)
        alpha = (alpha / alpha.sum()).to(rows.device)
        if kernel is None:
            self.machine.learnt(alpha, gamma, 0.0)
        else:
            self.machine.learnt(-2 * alpha, gamma, 1 + float(alpha @ kernel @ alpha))  # |φ|² - 2 φ·c + |c|²
        self.track({"train/support_vectors": torch.tensor(float(len(svm.support_)))})

    def predict(self, image: Tensor) -> Prediction:
        """Score: squared distance from the centre, |φ(x) - c|²."""
        x = self.featured(image)
        if self.settings.kernel == "rbf":
            return Prediction(self.machine(x).float())
        rows, alpha = self.machine.support()
        centre = alpha @ rows
        return Prediction((self.machine.projected(x) - centre).square().sum(1).float())
