"""Baselines: model-free policies to compare with, under the same evaluation."""
