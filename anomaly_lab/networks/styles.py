"""What the styles of normal images are like: how far a code lies from them, and how large distances of normals are."""

import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor, nn

COMPONENTS = ("image", "perceptual", "feature", "round_trip", "styles")  # of the anomaly score, in this order
APART = COMPONENTS.index("round_trip")  # number of distances that are not of a style each
NEGLIGIBLE = 1e-6  # variance along a principal axis below which, relative to the first axis, it is left out


class NormalStyles(nn.Module):
    """Bank of the codes and distances of normal images, from which the components of a score follow.

    Row i of the bank belongs to half i of two: each half's distance to normal styles is measured with the axes of the
    other, so that its deviation is that of images which the axes have not seen.

    Args:
        capacity: maximum number of images.
        num_styles: styles of a code, L.
        w_dim: length of a style, W.
        axes: maximum number of principal axes of each style.
        side: height and width of an image.

    Attributes:
        map: mean anomaly map of the gathered images, [1, side, side].

    Examples:
        >>> styles = NormalStyles(capacity=100, num_styles=2, w_dim=4, axes=3, side=8)
        >>> codes, distances = torch.randn(100, 2, 4), torch.rand(100, 5)
        >>> styles.gather(codes, distances, torch.rand(100, 1, 8, 8), fold=torch.arange(100) % 2, start=0)
        >>> styles.learn()
        >>> styles.standardised(styles.components(codes, distances)).shape
        torch.Size([100, 5])
    """

    codes: Tensor
    distances: Tensor
    fold: Tensor
    count: Tensor
    round_trip: Tensor
    mean: Tensor
    axes: Tensor
    deviation: Tensor
    map: Tensor

    def __init__(self, capacity: int, num_styles: int, w_dim: int, axes: int, side: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(capacity, num_styles, w_dim))
        self.register_buffer("distances", torch.zeros(capacity, APART + num_styles))
        self.register_buffer("fold", torch.zeros(capacity, dtype=torch.long))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("round_trip", torch.ones(num_styles))
        self.register_buffer("mean", torch.zeros(num_styles, w_dim))
        self.register_buffer("axes", torch.zeros(num_styles, axes, w_dim))
        self.register_buffer("deviation", torch.ones(len(COMPONENTS)))
        self.register_buffer("map", torch.zeros(1, side, side))

    def gather(self, codes: Tensor, distances: Tensor, maps: Tensor, fold: Tensor, start: int) -> None:
        """Append images; those beyond the capacity are dropped.

        Args:
            codes: [n, L, W].
            distances: of the image, perceptual, of its features, and of each style after a round trip, [n, 3 + L].
            maps: anomaly maps, [n, 1, side, side].
            fold: 0 or 1, [n]; the same for the same image.
            start: number of images gathered before, known without waiting for the device.
        """
        stop = min(start + len(codes), len(self.codes))
        if stop <= start:
            return
        for bank, rows in ((self.codes, codes), (self.distances, distances), (self.fold, fold)):
            bank[start:stop] = rows[: stop - start]
        self.map += (maps[: stop - start] - self.map).sum(0) / stop
        self.count.fill_(stop)

    def learn(self) -> None:
        """Fit axes and round trip to the gathered images, and the deviation of each component."""
        n = int(self.count)
        codes, distances, fold = self.codes[:n], self.distances[:n], self.fold[:n]
        self.round_trip.copy_(distances[:, APART:].mean(0).clamp_min(torch.finfo(torch.float32).tiny))
        components = torch.zeros(n, len(COMPONENTS), device=codes.device)
        for which in (0, 1):
            held_out, seen = fold == which, fold != which
            self._fit(codes[seen] if seen.sum() > 1 else codes)
            components[held_out] = self.components(codes[held_out], distances[held_out])
        self._fit(codes)
        self.deviation.copy_(components.std(0, correction=0).clamp_min(1e-12))

    def _fit(self, codes: Tensor) -> None:
        """Fit the principal axes of each style, [n, L, W], each divided by the deviation along it after shrinkage."""
        self.mean.copy_(codes.mean(0))
        self.axes.zero_()
        for style, rows in enumerate((codes - self.mean).cpu().double().unbind(1)):
            _, singular, axes = torch.linalg.svd(rows, full_matrices=False)
            variance = singular.square() / len(rows)
            kept = min(self.axes.shape[1], int((variance > NEGLIGIBLE * variance[0]).sum()))
            if not kept:
                continue
            variance, axes = variance[:kept], axes[:kept]
            # Ledoit, Wolf 2004: towards the mean variance; the axes stay the same
            shrinkage = ledoit_wolf_shrinkage((rows @ axes.T).numpy(), assume_centered=True)
            variance = torch.lerp(variance, variance.mean().expand(kept), float(shrinkage))
            self.axes[style, :kept] = (axes / (variance * kept).sqrt()[:, None]).to(self.axes)

    def components(self, codes: Tensor, distances: Tensor) -> Tensor:
        """Return the components of the score, [B, 5] in the order of COMPONENTS.

        Args:
            codes: [B, L, W].
            distances: of the image, perceptual, of its features, and of each style after a round trip, [B, 3 + L].

        Returns:
            The first three distances; the mean over styles of the others, relative to that of normals; the mean over
            styles and axes of the squared Mahalanobis distance from normal styles.
        """
        round_trip = (distances[:, APART:] / self.round_trip).mean(1)
        along = torch.einsum("blw,lkw->blk", codes - self.mean, self.axes)
        return torch.cat([distances[:, :APART], round_trip[:, None], along.square().sum(2).mean(1, keepdim=True)], 1)

    def standardised(self, components: Tensor) -> Tensor:
        """Return components [B, 5] in standard deviations of normals; their mean is not subtracted, a constant."""
        return components / self.deviation
