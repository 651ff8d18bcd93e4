"""Readers that turn files into arrays: one module per format, with `files` as the common entry point."""
