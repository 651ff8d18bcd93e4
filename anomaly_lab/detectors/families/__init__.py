"""What kinds of detectors share: bookkeeping, optimiser steps, adversarial losses, the fake pool."""
