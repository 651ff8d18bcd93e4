"""Kernel density estimate: what flows where."""

from drawing import Panel
from panels import kernel


def panels() -> list[Panel]:
    return kernel("Gaussians", "width by 5 folds", "10 000", "−log Σᵢ exp(−γ|x − xᵢ|²) + const", "one a normal")
