"""Evaluation of scores and maps: thresholds from validation normals, metrics, baselines, stitching of patches."""
