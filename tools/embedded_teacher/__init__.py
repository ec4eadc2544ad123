"""How the teacher that ships was made: train it again (rebuild), or measure its rows again (verify)."""
