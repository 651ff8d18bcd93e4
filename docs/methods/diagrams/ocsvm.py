"""One-class SVM: what flows where."""

from drawing import Panel
from panels import kernel


def panels() -> list[Panel]:
    return kernel("one-class SVM", "RBF, ν = .1", "10 000", "ρ − Σᵢ αᵢ k(x, xᵢ)", "support vectors")
