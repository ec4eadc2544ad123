"""Input that means harm or is broken, made from input that is right: settings, models, run folders, prompt files."""
