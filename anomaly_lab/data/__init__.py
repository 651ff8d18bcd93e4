"""Data: from files on disk to batches, with one module per data set and a common pipeline for all of them."""
