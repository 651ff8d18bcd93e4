"""Scores new scans with an export: numpy, Pillow and onnxruntime are enough, torch is not imported."""
