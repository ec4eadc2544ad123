"""Where published checkpoints are, and how their weights are read."""
