"""Fitted kernel methods as tensors of fixed shape: rows of features, and a Gaussian kernel around each."""

import torch
from torch import Tensor, nn

from anomaly_lab.networks.features import Projection


class KernelMachine(nn.Module):
    """Kernel expansion: x [B, D] -> offset + Σ_i weight_i · exp(-gamma · |x - row_i|²), [B], between projected rows.

    Sums are computed in float64 wherever the device supports it, so that rounding errors stay negligible.

    Args:
        capacity: maximum number of rows.
        num_features: D.
        components: maximum number of principal axes to project the rows on; 0 for none.

    Attributes:
        gathered: value of the buffer `count`, the number of rows, readable without waiting for the device.

    Examples:
        >>> machine = KernelMachine(capacity=2, num_features=1)
        >>> machine.gather(torch.tensor([[0.0], [1.0]]))
        >>> machine.learnt(torch.tensor([2.0, 0.0]), gamma=1.0, offset=-1.0)
        >>> machine(torch.tensor([[0.0]])).item()  # 2 · exp(0) - 1
        1.0
    """

    rows: Tensor
    count: Tensor
    weights: Tensor
    gamma: Tensor
    offset: Tensor

    def __init__(self, capacity: int, num_features: int, components: int = 0) -> None:
        super().__init__()
        self.projection = Projection(num_features, components)
        self.register_buffer("rows", torch.zeros(capacity, num_features))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("weights", torch.zeros(capacity))
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))
        self.gathered = 0
        self.register_load_state_dict_post_hook(_recount)  # type: ignore[no-untyped-call]

    def gather(self, rows: Tensor) -> None:
        """Append rows [n, D]; rows beyond the capacity are dropped."""
        start = self.gathered
        rows = rows[: len(self.rows) - start]
        self.rows[start : start + len(rows)] = rows
        self.gathered += len(rows)
        self.count += len(rows)

    def project(self) -> Tensor:
        """Fit the projection to the gathered rows and return them projected, [n, F] in float64."""
        gathered = self.rows[: self.gathered]
        self.projection.learn(gathered)
        return self.projected(gathered)

    def learnt(self, weights: Tensor, gamma: float, offset: float) -> None:
        """Store the fitted parameters: a weight for each gathered row [n], gamma of the kernel, offset of the sum."""
        self.weights.zero_()
        self.weights[: len(weights)] = weights
        self.gamma.fill_(gamma)
        self.offset.fill_(offset)

    def support(self) -> tuple[Tensor, Tensor]:
        """Return the projected rows with a non-zero weight, [n, F], and their weights [n]."""
        used = self.weights.nonzero().squeeze(1)
        return self.projected(self.rows[used]), precise(self.weights[used])

    def projected(self, x: Tensor) -> Tensor:
        """Project x [B, D] -> [B, F]."""
        return precise(self.projection(x))

    def exponents(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return -gamma · |x - row|² for each x [B, D] and each projected row [n, F], [B, n]."""
        return -self.gamma * squared_distances(self.projected(x), rows)

    def forward(self, x: Tensor) -> Tensor:
        rows, weights = self.support()
        total: Tensor = self.exponents(x, rows).exp() @ weights + self.offset
        return total


def _recount(machine: KernelMachine, keys: object) -> None:
    machine.gathered = int(machine.count)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_i - y_j|², [n, m], of rows x [n, F] and y [m, F].

    It is computed from one matrix product, which needs float64.

    Examples:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
        >>> squared_distances(x, x).tolist()
        [[0.0, 25.0], [25.0, 0.0]]
    """
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(lengths, x, y.T, alpha=-2).clamp_min(0)


def scale(rows: Tensor) -> float:
    """Return 1 / (F · variance of all values) of rows [n, F], scikit-learn's gamma="scale"; 1 if they do not vary.

    Examples:
        >>> scale(torch.tensor([[0.0, 4.0]]))  # 1 / (2 · 4)
        0.125
    """
    spread = rows.shape[1] * float(rows.var(correction=0))
    return 1 / spread if spread > 0 else 1.0


def precise(x: Tensor) -> Tensor:
    """Convert x to float64, or to float32 on Apple's GPU, which does not support float64.

    Examples:
        >>> precise(torch.zeros(1)).dtype
        torch.float64
    """
    return x.float() if x.device.type == "mps" else x.double()
