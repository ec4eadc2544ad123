"""Signals that a distillation goes wrong: figures of tensors, and limits of figures. It knows no run and no process."""
