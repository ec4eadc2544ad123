"""The configurations of the built-in recipes' checkpoints, so that a plan needs no network and no permission."""
