"""Synthetic twins: generated files in the layout of a data set, with known lesions; they depend on a seed only."""
