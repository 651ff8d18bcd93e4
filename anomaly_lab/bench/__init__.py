"""Benchmarks of speed and memory: interleaved timings against a bare loop, MONAI, a sequential search and a peer."""
