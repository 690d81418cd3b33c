"""Numerical primitives as pure functions."""
