"""What ships with the package: a small but genuine teacher, its classifier, its prompts, its reference and its rows."""
