"""Metrics on raw scores and maps, computed once from all of them."""
