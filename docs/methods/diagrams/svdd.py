"""SVDD: what flows where."""

from drawing import Panel
from panels import kernel


def panels() -> list[Panel]:
    return kernel("sphere", "linear, ν = .1", "5 000", "|x − c|²", "centre c")
