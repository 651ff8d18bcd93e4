"""Pixels read once, kept in one memory-mapped array that all runs share."""
