"""Generative adversarial networks as energy-based models.

One sign everywhere: F(x) is low for what is real, so a discriminator's logit is -F.
Shapes: pictures (B, C, H, W) in [-1, 1], noise (B, Z), energies (B,).
"""
