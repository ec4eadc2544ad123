"""Where prompts enter: the one check that every text passes, and the files that people keep prompts in."""
