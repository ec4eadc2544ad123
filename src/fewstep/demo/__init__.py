"""The embedded default: a small but genuine teacher, its classifier, its reference, and their rebuild."""
