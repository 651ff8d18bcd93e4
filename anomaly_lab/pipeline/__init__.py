"""What the verbs of the command line do: train, resume, evaluate, predict, inspect."""
