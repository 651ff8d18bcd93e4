"""What a kernel method knows after learning, as tensors of fixed shape: rows, and a Gaussian kernel about each."""

import torch
from torch import Tensor, nn

from anomaly_lab.networks.features import Projection


class KernelMachine(nn.Module):
    """x [B, D] -> offset + Σ_i weight_i · exp(-gamma · |x - row_i|²), [B], between projected rows.

    Nothing is lost to rounding: sums are float64 wherever the device has it.

    Args:
        capacity: most rows that can be gathered.
        num_features: D.
        components: most principal axes the rows are projected on; 0 for none.
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

    def gather(self, rows: Tensor) -> None:
        """Add rows [n, D]; those that no longer fit are left out."""
        begin = int(self.count)
        rows = rows[: len(self.rows) - begin]
        self.rows[begin : begin + len(rows)] = rows
        self.count += len(rows)

    def project(self) -> Tensor:
        """Learn the projection from the gathered rows, which are returned projected, [n, F] float64."""
        gathered = self.rows[: int(self.count)]
        self.projection.learn(gathered)
        return self.projected(gathered)

    def learnt(self, weights: Tensor, gamma: float, offset: float) -> None:
        """Keep what was learnt: a weight for each gathered row [n], the kernel's width, the sum's offset."""
        self.weights.zero_()
        self.weights[: len(weights)] = weights
        self.gamma.fill_(gamma)
        self.offset.fill_(offset)

    def support(self) -> tuple[Tensor, Tensor]:
        """Projected rows that have a weight, [n, F], and their weights [n]."""
        used = self.weights.nonzero().squeeze(1)
        return self.projected(self.rows[used]), precise(self.weights[used])

    def projected(self, x: Tensor) -> Tensor:
        """`x` [B, D] -> [B, F]."""
        return precise(self.projection(x))

    def exponents(self, x: Tensor, rows: Tensor) -> Tensor:
        """-gamma · |x - row|² of each x [B, D] and each projected row [n, F], [B, n]."""
        return -self.gamma * squared_distances(self.projected(x), rows)

    def forward(self, x: Tensor) -> Tensor:
        rows, weights = self.support()
        total: Tensor = self.exponents(x, rows).exp() @ weights + self.offset
        return total


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|², [n, m], of rows x [n, F] and y [m, F]; by one matrix product, so give it float64."""
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(lengths, x, y.T, alpha=-2).clamp_min(0)


def scale(rows: Tensor) -> float:
    """1 / (F · variance of all values) of rows [n, F]: scikit-learn's gamma="scale"; 1 where they do not vary."""
    spread = rows.shape[1] * float(rows.var(correction=0))
    return 1 / spread if spread > 0 else 1.0


def precise(x: Tensor) -> Tensor:
    """`x` in float64; in float32 on Apple's GPU, which has no other."""
    return x.float() if x.device.type == "mps" else x.double()
