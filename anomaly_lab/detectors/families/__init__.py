"""Base classes of detectors: training bookkeeping, optimiser steps, adversarial losses, the fake pool."""
