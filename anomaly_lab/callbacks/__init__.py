"""Callbacks that run beside training: metric log, checkpoints, sample images, progress bar, GAN health, dashboards."""
