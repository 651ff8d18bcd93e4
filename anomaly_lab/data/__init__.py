"""From files on disk to batches: one file a data set, one road for all."""
