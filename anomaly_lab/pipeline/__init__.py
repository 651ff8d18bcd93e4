"""The commands: train, resume, evaluate, predict, report and inspect."""
