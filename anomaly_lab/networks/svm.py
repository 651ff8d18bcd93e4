"""A two-class support vector machine as tensors of fixed shape, fitted by scikit-learn."""

from typing import Literal

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from anomaly_lab.networks.kernels import precise, scale, squared_distances

Kernel = Literal["rbf", "linear"]


class SupportVectorMachine(nn.Module):
    """Decision function: x [B, D] -> offset + Σ_i weight_i · k(x, row_i), [B] in float64, positive for label 1.

    Rows are standardised by their mean and deviation before the kernel; both classes weigh alike, however many rows
    each has. Apple's GPU has no float64; there it is float32.

    Args:
        normals: maximum number of rows with label 0.
        anomalies: maximum number of rows with label 1.
        num_features: D.
        kernel: `rbf`, exp(-gamma · |x - row|²) with gamma = 1 / (D · variance); or `linear`.
        cost: C, penalty of a row on the wrong side.

    Examples:
        >>> machine = SupportVectorMachine(normals=2, anomalies=2, num_features=1)
        >>> machine.gather(torch.tensor([[0.0], [1.0], [8.0], [9.0]]), torch.tensor([0, 0, 1, 1]))
        >>> machine.learn()
        >>> (machine(torch.tensor([[0.5], [8.5]])) > 0).tolist()
        [False, True]
    """

    rows: Tensor
    counts: Tensor
    weights: Tensor
    remainders: Tensor
    mean: Tensor
    deviation: Tensor
    gamma: Tensor
    offset: Tensor
    sigmoid: Tensor
    fitted: Tensor

    def __init__(
        self, normals: int, anomalies: int, num_features: int, kernel: Kernel = "rbf", cost: float = 1.0
    ) -> None:
        super().__init__()
        self.kernel, self.cost, self.capacity = kernel, cost, (normals, anomalies)
        self.register_buffer("rows", torch.zeros(normals + anomalies, num_features))  # normals first
        self.register_buffer("counts", torch.zeros(2, dtype=torch.long))
        # A weight is the sum of two float32 numbers: rounding 50 000 of them alike would shift the sum by up to 0.001.
        self.register_buffer("weights", torch.zeros(normals + anomalies))
        self.register_buffer("remainders", torch.zeros(normals + anomalies))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("deviation", torch.ones(num_features))
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("sigmoid", torch.tensor([1.0, 0.0]))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def gather(self, rows: Tensor, label: Tensor) -> None:
        """Append rows [n, D] with labels 0 or 1, [n]; of each class, rows beyond its number are dropped."""
        for kind, first in enumerate((0, self.capacity[0])):
            place = self.counts[kind] + (label == kind).cumsum(0) - 1
            kept = (label == kind) & (place < self.capacity[kind])
            place = torch.where(kept, first + place, 0)  # a dropped row adds 0 somewhere: nobody waits for the device
            self.rows.index_add_(0, place, torch.where(kept[:, None], rows, 0.0).to(self.rows))
            self.counts[kind] += kept.sum()

    def learn(self) -> None:
        """Fit the machine to the gathered rows, and a sigmoid to its decisions on them.

        Raises:
            ValueError: one of the two classes has no rows.
        """
        used, label = self._used()
        rows = self.rows[used].double()
        if not self.counts.all():
            raise ValueError(f"the SVM was given {int(self.counts[0])} normals and {int(self.counts[1])} anomalies")
        self.mean.copy_(rows.mean(0))
        self.deviation.copy_(rows.std(0, correction=0).clamp_min(1e-12))
        x = self.standardised(self.rows[used])
        self.gamma.fill_(scale(x))
        svm = SVC(C=self.cost, kernel=self.kernel, gamma=float(self.gamma), class_weight="balanced")
        svm.fit(x.cpu().numpy(), label)
        weights = torch.zeros(len(self.rows), dtype=torch.float64)
        weights[used.cpu()[svm.support_]] = torch.from_numpy(svm.dual_coef_[0])
        self.weights.copy_(weights)
        self.remainders.copy_(weights - weights.float().double())
        self.offset.fill_(float(svm.intercept_[0]))
        # Platt 1999, without held-out rows: the slope is steeper than it would be on others.
        platt = LogisticRegression(class_weight="balanced").fit(svm.decision_function(x.cpu().numpy())[:, None], label)
        self.sigmoid.copy_(torch.tensor([float(platt.coef_[0, 0]), float(platt.intercept_[0])]))
        self.fitted.fill_(True)

    def standardised(self, x: Tensor) -> Tensor:
        """Return (x - mean) / deviation, [B, D] in float64."""
        return (precise(x) - precise(self.mean)) / precise(self.deviation)

    def support(self) -> tuple[Tensor, Tensor]:
        """Return the standardised rows with a non-zero weight, [n, D], and their weights [n]."""
        used = self.weights.nonzero().squeeze(1)
        return self.standardised(self.rows[used]), precise(self.weights[used]) + precise(self.remainders[used])

    def forward(self, x: Tensor) -> Tensor:
        rows, weights = self.support()
        x = self.standardised(x)
        if self.kernel == "linear":
            return (x @ (rows.T @ weights)) + precise(self.offset)
        return (-precise(self.gamma) * squared_distances(x, rows)).exp() @ weights + precise(self.offset)

    def probability(self, decision: Tensor) -> Tensor:
        """Return the probability of label 1, [B], for decisions [B]."""
        return torch.sigmoid(self.sigmoid[0] * decision + self.sigmoid[1])

    def _used(self) -> tuple[Tensor, np.ndarray]:
        """Return the places of the gathered rows, [n], and their labels."""
        normals, anomalies = self.counts.tolist()
        first = self.capacity[0]
        used = torch.cat([torch.arange(normals), torch.arange(first, first + anomalies)]).to(self.rows.device)
        return used, np.repeat([0, 1], [normals, anomalies])
