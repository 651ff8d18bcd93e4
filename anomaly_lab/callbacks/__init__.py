"""What happens beside the training: the record, checkpoints, samples, dashboards."""
