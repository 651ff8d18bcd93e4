"""One-class SVM: the smallest region that holds all but a fraction nu of the normals, through a Gaussian kernel.

Schölkopf, Platt, Shawe-Taylor, Smola, Williamson 2001, Neural Computation 13, 1443-1471. nu .1 on pixels in [0, 1] as
Ruff et al. 2018 have it; they choose gamma on labelled test images, which is not done here.
"""

from typing import Annotated

import torch
from sklearn.svm import OneClassSVM
from torch import Tensor

from anomaly_lab.detectors.families.kernel import FeatureBankDetector, FeatureName, features_of
from anomaly_lab.networks.kernels import scale
from anomaly_lab.types import Channels, Count, Iterations, Prediction, Range


class OCSVM(FeatureBankDetector):
    """Learnt by scikit-learn, kept as support vectors and coefficients.

    Args:
        patch_size: side of the square image, a power of two >= 32 for `code`, twice.
        in_channels: 1 or 3.
        features, weights, components, feature_iterations, samples, batch_size: as FeatureBankDetector's; a
            solver's time grows with the square of `samples`, about a minute for 10 000.
        nu: fraction of the normals left outside.
        gamma: 1 / (2 width²) of the kernel; None for 1 / (features · their variance).
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
            raise ValueError("detector.nu is a fraction of the normals, between 0 and 1")
        super().__init__()
        self.save_hyperparameters()
        self.assemble(features_of(features, patch_size, in_channels), samples, components)

    def learn(self) -> None:
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
