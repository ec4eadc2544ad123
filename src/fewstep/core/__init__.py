"""The maths of distribution matching: tensors in, tensors out. Imports torch and jaxtyping only."""
