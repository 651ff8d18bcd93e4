"""Principal components of normal images: the axes, the residual that they leave, and a bank to learn them from.

Jolliffe 2002, Principal Component Analysis.
"""

import torch
from torch import Tensor, nn

from anomaly_lab.networks.banks import Bank


def principal_axes(x: Tensor, mean: Tensor, count: int) -> Tensor:
    """Compute the leading principal axes.

    They come from the eigenvectors of the [n, n] inner products, because images have more pixels than there are images.

    Args:
        x: [n, D].
        mean: mean of x, [D].
        count: number of axes wanted.

    Returns:
        Orthonormal axes, float64 [k, D]: k = min(count, n - 1), or fewer where x varies in fewer directions.

    Examples:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])  # varies along the first coordinate only
        >>> principal_axes(x, x.mean(0, dtype=torch.float64), count=2).abs().round()
        tensor([[1., 0.]], dtype=torch.float64)
    """
    products = torch.zeros(len(x), len(x), dtype=torch.float64)
    columns = zip(torch.split(x, 4096, 1), torch.split(mean, 4096), strict=True)
    blocks = list(columns)  # in blocks, to keep the float64 copies small
    for block, centre in blocks:
        centred = block.double() - centre
        products += centred @ centred.T
    variance, vectors = torch.linalg.eigh(products)  # ascending
    variance, vectors = variance[-count:], vectors[:, -count:]
    nonzero = variance > 1e-10 * variance[-1]  # also drops the direction that centring removes
    axes = torch.cat([vectors[:, nonzero].T @ (block.double() - centre) for block, centre in blocks], 1)
    return torch.div(axes, variance[nonzero].sqrt()[:, None])


def residual(x: Tensor, mean: Tensor, axes: Tensor) -> Tensor:
    """Return what the axes do not explain: x minus its projection onto the affine subspace, with its sign.

    Args:
        x: [D] or [B, D].
        mean: [D].
        axes: orthonormal, [k, D]; with k = 0 the residual is x - mean.

    Examples:
        >>> residual(torch.tensor([3.0, 5.0]), mean=torch.tensor([0.0, 1.0]), axes=torch.tensor([[1.0, 0.0]]))
        tensor([0., 4.])
    """
    centred = x.to(mean.dtype) - mean
    return centred - (centred @ axes.T) @ axes


class Subspace(nn.Module):
    """Bank of images, and the affine subspace learnt from it: image [B, D] -> its residual [B, D].

    Args:
        capacity: maximum number of images kept to learn from.
        num_features: D, number of values of an image.
        components: maximum number of axes.

    Examples:
        >>> subspace = Subspace(capacity=3, num_features=2, components=1)
        >>> subspace.bank.gather(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
        >>> subspace.learn()
        >>> subspace(torch.tensor([[9.0, 3.0]])).round().tolist()  # the first coordinate is explained
        [[0.0, 2.0]]
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, capacity: int, num_features: int, components: int) -> None:
        super().__init__()
        self.bank = Bank(capacity, (num_features,))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("axes", torch.zeros(components, num_features))

    def learn(self) -> None:
        """Fit mean and axes to the gathered images; axes that there are not are 0."""
        rows = self.bank.gathered.cpu()
        mean = rows.mean(0, dtype=torch.float64)
        axes = principal_axes(rows, mean, len(self.axes))
        self.mean.copy_(mean)
        self.axes.zero_()
        self.axes[: len(axes)] = axes.to(self.axes)

    def forward(self, x: Tensor) -> Tensor:
        return residual(x, self.mean, self.axes)
