"""What is made beside the package and is no part of it: each folder is a program, `python -m tools.NAME`."""
