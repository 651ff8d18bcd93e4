"""Quality of generated images: distances between two sets of features, and diversity within a set."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]
GROUPS = 10  # parts that the jackknife of a kernel distance leaves out in turn
BLOCK = 1024  # rows whose distances to all others are in memory at the same time


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
    a, b = (_root((z - z.mean(0)) / np.sqrt(len(z) - 1)) for z in (x, y))
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


def kernel_distance_and_error(x: Rows, y: Rows, groups: int = GROUPS) -> tuple[float, float]:
    """Return the distance of `kernel_distance` and its standard error.

    Both sets are cut into as many parts of consecutive rows, so that images of one patient that follow each other stay
    together. The error is the jackknife's: from the distances of the sets without their first parts, without their
    second parts, and so on (Efron, Tibshirani 1993, An Introduction to the Bootstrap, ch. 11). Of equal distributions
    it is √2 times too large. ≠ paper (Bińkowski et al. 2018): its random subsets overlap, so that their deviation is
    not that of the mean.

    Args:
        x: features of one set, [n, F], n >= 4.
        y: features of the other set, [m, F], m >= 4.
        groups: parts of a set; fewer if it has fewer than two rows for each.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> y = np.random.default_rng(1).normal(size=(200, 2))
        >>> value, error = kernel_distance_and_error(x, y)
        >>> np.isclose(value, kernel_distance(x, y)), abs(value) < 3 * error
        (np.True_, True)
    """
    groups = min(groups, len(x) // 2, len(y) // 2)
    parts = [np.array_split(np.asarray(z, np.float64), groups) for z in (x, y)]
    n, m = (np.array([len(part) for part in split]) for split in parts)
    xx, yy, xy = (_kernel_sums(parts[i], parts[j], i == j) for i, j in ((0, 0), (1, 1), (0, 1)))

    def distance(kept: NDArray[np.bool_]) -> float:
        a, b, both = n[kept].sum(), m[kept].sum(), np.ix_(kept, kept)
        within = xx[both].sum() / (a * (a - 1)) + yy[both].sum() / (b * (b - 1))
        return float(within - 2 * xy[both].sum() / (a * b))

    left_out = np.array([distance(np.arange(groups) != i) for i in range(groups)])
    variance = (groups - 1) / groups * np.square(left_out - left_out.mean()).sum()
    return distance(np.ones(groups, bool)), float(np.sqrt(variance))


def precision_and_recall(real: Rows, fake: Rows, neighbours: int = 3) -> tuple[float, float]:
    """Return the share of fakes that lie among real images, and the share of real images that lie among fakes.

    Kynkäänniemi et al. 2019, eq. 1 and 2. A set covers the balls around its members, each up to the k-th nearest other
    member. Precision is low if fakes look unreal, recall if they lack part of what real images show. Both depend on the
    numbers of images, which should be equal.

    Args:
        real: features of real images, [n, F], n > k.
        fake: features of generated images, [m, F], m > k.
        neighbours: k.

    Examples:
        >>> real, fake = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([[-0.5], [0.5], [1.5], [2.5]])
        >>> precision_and_recall(real, fake, neighbours=1)  # 2.5 is no real number; nothing is like 10 and 11
        (0.75, 0.5)
    """
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    return _covered(fake, real, neighbours), _covered(real, fake, neighbours)


def spread(x: Rows) -> float:
    """Return the mean Euclidean distance between two different rows of x [n, F].

    Examples:
        >>> float(spread(np.array([[0.0, 0.0], [3.0, 4.0]])))
        5.0
    """
    x = np.asarray(x, np.float64)
    x = x - x[0]  # rows that are all alike are exactly 0 apart
    squared = np.square(x).sum(1)
    distance = np.sqrt(np.clip(squared[:, None] + squared - 2 * x @ x.T, 0, None))
    np.fill_diagonal(distance, 0)
    return float(distance.sum() / (len(x) * (len(x) - 1)))


def _root(a: Rows) -> Rows:
    """Return a matrix R with RᵀR = AᵀA and no more rows than columns: more images than features cost no more."""
    return np.asarray(np.linalg.qr(a, mode="r")) if len(a) > a.shape[1] else a


def _kernel_sums(one: Sequence[Rows], other: Sequence[Rows], same: bool) -> Rows:
    """Return the sum of KID's kernel over each pair of parts; of a set with itself without the pairs of equal rows."""
    sums = np.empty((len(one), len(other)))
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            values = (a @ b.T / a.shape[1] + 1) ** 3
            sums[i, j] = values.sum() - (np.trace(values) if same and i == j else 0)
    return sums


def _covered(x: Rows, members: Rows, neighbours: int) -> float:
    """Return the share of rows x that lie in a ball around a member, up to its k-th nearest other member."""
    within = [np.partition(block, neighbours, axis=1)[:, neighbours] for block in _squared_distances(members, members)]
    radii = np.concatenate(within)  # the nearest is the member itself
    return float(np.concatenate([(block <= radii).any(1) for block in _squared_distances(x, members)]).mean())


def _squared_distances(a: Rows, b: Rows) -> Iterator[Rows]:
    """Yield the squared Euclidean distances of rows a to rows b, [block, m] for consecutive blocks of a."""
    centre = b.mean(0)  # without it, rounding errors would be those of the distance from 0
    a, b = a - centre, b - centre
    for start in range(0, len(a), BLOCK):
        block = a[start : start + BLOCK]
        squared = np.square(block).sum(1)[:, None] + np.square(b).sum(1) - 2 * block @ b.T
        yield np.clip(squared, 0, None)
