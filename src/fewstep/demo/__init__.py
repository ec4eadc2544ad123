"""The demo: distil the embedded teacher and compare the student with it; and how that teacher was made."""
