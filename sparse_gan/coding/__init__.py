"""Sparse coding and sparse auto-encoders: energy minimisation over a regularised latent.

Shapes everywhere: x (B, M) observations, z (B, N) codes, D (M, N) the dictionary with one atom a
column. lambda is written ``lam``, Python having taken the word.
"""
