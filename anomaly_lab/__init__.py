"""anomaly_lab: GAN-based anomaly detection in medical and X-ray images, judged honestly."""

__version__ = "0.1.0"
