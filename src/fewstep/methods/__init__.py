"""Algorithms over core and the ModelAdapter protocol: no optimiser, no device, no config parsing."""
