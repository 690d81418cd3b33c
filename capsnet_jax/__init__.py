"""Capsule networks, routing by agreement and the conv nets they answer to, in JAX."""

__version__ = "0.1.0"
