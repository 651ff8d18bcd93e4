"""Baselines: anomaly scores fitted in seconds on a detector's training normals, one file each, found by themselves.

A detector that does not beat the best of them is not worth its training. None of them sees a label.

Example:
    >>> from anomaly_lab.evaluation.baselines.fitted import kinds
    >>> sorted(kinds())[:3]
    ['brightness', 'low_pass_pca', 'mean_image']
"""
