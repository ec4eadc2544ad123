"""The demo: distil the embedded teacher and compare the student with it."""
