"""Integers mod 2^64: kernels, fixed point, randomness. Knows no secrets and no network."""
