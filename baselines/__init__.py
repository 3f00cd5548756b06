"""Baselines: model-free drivers to compare with, measured by the same evaluation."""
