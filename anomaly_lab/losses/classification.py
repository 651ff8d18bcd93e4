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


def class_weights(target: Tensor, task: str) -> Tensor:
    """Return weights that make up for the numbers of images: [K].

    Args:
        target: of all training images, [N, K]: 1 yes, 0 no, -1 unknown.
        task: `multiclass`: N / (K · images of the class). `multilabel`: known negatives / positives of the class.

    Examples:
        >>> import torch
        >>> class_weights(torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1]]), "multiclass").tolist()
        [0.6666666865348816, 2.0]
        >>> class_weights(torch.tensor([[1, 0], [0, 0], [0, 0], [-1, 1]]), "multilabel").tolist()
        [2.0, 3.0]
    """
    positives, negatives = (target == 1).sum(0).float(), (target == 0).sum(0).float()
    if task == "multiclass":
        return len(target) / (target.shape[1] * positives.clamp_min(1))
    return negatives.clamp_min(1) / positives.clamp_min(1)
