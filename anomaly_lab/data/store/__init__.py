"""The pixel store: every file is read once, and the pixels are kept in a memory-mapped array shared by all runs."""
