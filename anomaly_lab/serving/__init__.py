"""A small server that scores uploaded scans with a trained run; needs the extra `serve`."""
