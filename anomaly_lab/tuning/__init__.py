"""Tuning without labels: settings are chosen by lesions planted on validation normals.

Optuna proposes values and prunes; its journal is one file, so that any number of processes and machines work on it.

Example:
    >>> from anomaly_lab.tuning.space import read_space
    >>> [parameter.key for parameter in read_space("detector.lr=log(1e-5,1e-2) detector.width=choice(16,32)")]
    ['detector.lr', 'detector.width']
"""
