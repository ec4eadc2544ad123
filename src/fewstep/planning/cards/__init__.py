"""What ``python -m benchmarks.gpu`` wrote on cards that a plan may name; there is none yet."""
