"""From a name and overrides to a checked experiment, the run folder that keeps it, and what makes two runs alike."""
