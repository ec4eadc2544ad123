"""The training loop: roles, optimisers and losses by name. Knows no equation and no backbone."""
