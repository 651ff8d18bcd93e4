"""My runs: one page over all run folders of a place, as a file or served on this machine."""
