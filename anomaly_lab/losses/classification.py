"""Cross-entropy of classes, computed from logits in float32 at any precision; unknown targets count for nothing."""

import torch.nn.functional as F
from torch import Tensor


def multiclass_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of one class of K, averaged over the images, -Σ w_c log softmax(logits)_c / Σ w_c.

    Args:
        logits: [B, K].
        target: [B, K], 1 for the class of the image, 0 for the others.
        weight: w, weight of each class, [K]; None for equal weights.

    Examples:
        >>> import torch
        >>> round(multiclass_loss(torch.zeros(2, 4), torch.eye(4)[:2]).item(), 4)  # log 4
        1.3863
    """
    return F.cross_entropy(logits.float(), target.argmax(1), weight)


def multilabel_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of each class, averaged over all known targets.

    Args:
        logits: [B, K].
        target: [B, K]: 1 yes, 0 no, -1 unknown.
        weight: factor of the positives of each class, [K]; None for 1.

    Returns:
        A scalar; 0 if nothing is known.

    Examples:
        >>> import torch
        >>> round(multilabel_loss(torch.zeros(1, 3), torch.tensor([[1, 0, -1]])).item(), 4)  # log 2
        0.6931
    """
    known = target >= 0
    loss = F.binary_cross_entropy_with_logits(
        logits.float(), target.clamp_min(0).float(), pos_weight=weight, reduction="none"
    )
    return (loss * known).sum() / known.sum().clamp_min(1)


def class_weights(counts: Tensor, task: str) -> Tensor:
    """Return weights that make up for the numbers of images: [K].

    Args:
        counts: training images that are of each class and that are not, [K, 2]; the unknown are in neither.
        task: `multiclass`: N / (K · images of the class). `multilabel`: images that are not / that are of the class.

    Examples:
        >>> import torch
        >>> class_weights(torch.tensor([[3, 1], [1, 3]]), "multiclass").tolist()
        [0.6666666865348816, 2.0]
        >>> class_weights(torch.tensor([[1, 2], [1, 3]]), "multilabel").tolist()
        [2.0, 3.0]
    """
    positives, negatives = counts.float().clamp_min(1).unbind(1)
    if task == "multiclass":
        return counts.sum(1) / (len(counts) * positives)
    return negatives / positives
