"""Compose and validate experiments, read and write run folders, fingerprint runs."""
