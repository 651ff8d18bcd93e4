"""Networks by architecture: pure tensors, no losses, no files."""
