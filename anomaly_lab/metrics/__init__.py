"""Metrics of raw scores and anomaly maps, computed once from all of them."""
