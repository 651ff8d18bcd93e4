"""Synthetic twins: files of a data set's own layout, generated from a seed, with known lesions."""
