"""Statistics of features: figures of one set of pictures or distances of two, pure functions of tensors."""
