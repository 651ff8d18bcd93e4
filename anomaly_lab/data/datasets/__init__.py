"""One file a data set: which files, which patients, which labels."""
