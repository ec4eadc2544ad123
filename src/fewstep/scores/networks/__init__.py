"""The networks that look at pictures, and what a picture goes through before they see it."""
