"""Sparse coding and generative adversarial networks on the same frames."""
