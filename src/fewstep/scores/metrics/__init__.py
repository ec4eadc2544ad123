"""The metrics: each one file, one card, one way to load its checkpoint; the registry names them."""
