"""Losses as functions of tensors; a loss that needs a network takes it as an argument."""
