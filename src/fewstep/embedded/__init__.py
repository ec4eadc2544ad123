"""What ships with the package: small but genuine teachers, their prompts, what judges them, and their rows."""
