"""One-class SVM: the smallest region that contains all but a fraction nu of the normals, with a Gaussian kernel.

Schölkopf, Platt, Shawe-Taylor, Smola, Williamson 2001, Neural Computation 13, 1443-1471. nu .1 on pixels in [0, 1] as
in Ruff et al. 2018, who choose gamma on labelled test images, which is not done here.
"""

from typing import Annotated

import torch
from sklearn.svm import OneClassSVM
from torch import Tensor

from anomaly_lab.detectors.families.kernel import FeatureBankDetector, FeatureName, features_of
from anomaly_lab.networks.kernels import scale
from anomaly_lab.types import Channels, Count, Iterations, Prediction, Range


class OCSVM(FeatureBankDetector):
    """One phase, `gather`, at whose end scikit-learn's one-class SVM is fitted; kept as support vectors.

    Args:
        patch_size: height and width of the image; for the features `code` equal, a power of two >= 32.
        in_channels: 1 or 3.
        features, weights, components, feature_iterations, samples, batch_size: as for FeatureBankDetector. The solver's
            time grows with the square of `samples`, about a minute for 10 000.
        nu: fraction of the normals left outside the region.
        gamma: 1 / (2 width²) of the kernel; None for 1 / (features · their variance).

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.OCSVM(patch_size=(1, 1), samples=3)
        >>> detector.machine.gather(torch.tensor([[0.4], [0.5], [0.6]]))
        >>> detector.learn()
        >>> normal, anomalous = detector.predict(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)).anomaly_score
        >>> bool(normal < anomalous)  # pixels .5 and 1
        True
    """

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Range("[1, 2048]")] = (32, 32),
        in_channels: Channels = 1,
        features: FeatureName = "pixels",
        weights: str = "",
        components: Annotated[int, Range("[0, 65536]")] = 0,
        feature_iterations: Iterations = 10_000,
        samples: Count = 10_000,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
        nu: Annotated[float, Range("(0, 1)")] = 0.1,
        gamma: Annotated[float, Range("(0, 1000000]")] | None = None,
    ) -> None:
        if not 0 < nu < 1:
            raise ValueError(f"detector.nu={nu}: must be a fraction of the normals between 0 and 1")
        super().__init__()
        self.save_hyperparameters()
        self.assemble(features_of(features, patch_size, in_channels), samples, components)

    def learn(self) -> None:
        """Fit the SVM to the gathered rows; its decision function is Σ_i alpha_i exp(-gamma |x - x_i|²) - rho."""
        rows = self.machine.project()
        gamma = self.settings.gamma or scale(rows)
        svm = OneClassSVM(kernel="rbf", nu=self.settings.nu, gamma=gamma).fit(rows.cpu().numpy())
        weights = torch.zeros(len(rows))
        weights[svm.support_] = torch.from_numpy(svm.dual_coef_[0]).float()
        self.machine.learnt(weights, gamma, float(svm.intercept_[0]))
        self.track({"train/support_vectors": torch.tensor(float(len(svm.support_)))})

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus the decision function, which is negative outside the region."""
        return Prediction(-self.machine(self.featured(image)).float())
