"""Makes the pictures, the teacher and the scorer of ``scenes``."""
