"""Quality of generated images: distances between two sets of features, and diversity within a set."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]


def frechet_distance(x: Rows, y: Rows) -> float:
    """Return the squared Fréchet distance between Gaussians fitted to two sets of features (the form of FID).

    Heusel et al. 2017. The trace of the matrix square root is computed as the sum of the singular values of A Bᵀ, where
    AᵀA and BᵀB are the covariances. This is exact even for fewer images than features, but the distance is then biased
    upwards.

    Args:
        x: features of one set, [n, F].
        y: features of the other set, [m, F].

    Examples:
        >>> x = np.array([[-1.0, 0.0], [1.0, 0.0]])
        >>> round(frechet_distance(x, x + [0.0, 3.0]), 6)  # equal covariances, means 3 apart
        9.0
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    between = np.square(x.mean(0) - y.mean(0)).sum()
    return float(between + np.square(a).sum() + np.square(b).sum() - 2 * np.linalg.norm(a @ b.T, "nuc"))


def kernel_distance(x: Rows, y: Rows) -> float:
    """Return the unbiased squared maximum mean discrepancy of two sets of features (the form of KID).

    Bińkowski et al. 2018, with their kernel (x·y / F + 1)³. All pairs are used instead of random subsets, so the result
    is deterministic. It may be negative.

    Args:
        x: features of one set, [n, F].
        y: features of the other set, [m, F].

    Examples:
        >>> x = np.array([[0.0], [0.0]])
        >>> kernel_distance(x, np.array([[1.0], [1.0]]))  # (0 + 1)³ + (1 + 1)³ - 2 · (0 + 1)³
        7.0
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
    """Return the mean Euclidean distance between two different rows of x [n, F].

    Examples:
        >>> float(spread(np.array([[0.0, 0.0], [3.0, 4.0]])))
        5.0
    """
    x = np.asarray(x, np.float64)
    squared = np.square(x).sum(1)
    distance = np.sqrt(np.clip(squared[:, None] + squared - 2 * x @ x.T, 0, None))
    np.fill_diagonal(distance, 0)
    return float(distance.sum() / (len(x) * (len(x) - 1)))
