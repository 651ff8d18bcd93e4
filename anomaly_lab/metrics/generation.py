"""How good a generator's images are: distances between two sets of features, and how far apart a set's members are."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]


def frechet_distance(x: Rows, y: Rows) -> float:
    """Squared Fréchet distance of two Gaussians with the means and covariances of x [n, F] and y [m, F] (FID's form).

    Heusel et al. 2017. Its trace of a root is the sum of the singular values of A Bᵀ, where AᵀA and BᵀB are the
    covariances: exact for fewer images than features as well, though the distance is then biased upwards.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    between = np.square(x.mean(0) - y.mean(0)).sum()
    return float(between + np.square(a).sum() + np.square(b).sum() - 2 * np.linalg.norm(a @ b.T, "nuc"))


def kernel_distance(x: Rows, y: Rows) -> float:
    """Unbiased squared maximum mean discrepancy of x [n, F] and y [m, F] under the kernel (x·y / F + 1)³ (KID's form).

    Bińkowski et al. 2018, over all pairs and no subsets: nothing is drawn. May be negative.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)

    def kernel(one: Rows, other: Rows) -> Rows:
        values: Rows = (one @ other.T / one.shape[1] + 1) ** 3
        return values

    def within(z: Rows) -> float:
        values = kernel(z, z)
        return float((values.sum() - np.trace(values)) / (len(z) * (len(z) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def spread(x: Rows) -> float:
    """Mean Euclidean distance between two different rows of x [n, F]."""
    x = np.asarray(x, np.float64)
    squared = np.square(x).sum(1)
    distance = np.sqrt(np.clip(squared[:, None] + squared - 2 * x @ x.T, 0, None))
    np.fill_diagonal(distance, 0)
    return float(distance.sum() / (len(x) * (len(x) - 1)))
