"""Networks by architecture: they know tensors only, no losses and no files of a run."""
