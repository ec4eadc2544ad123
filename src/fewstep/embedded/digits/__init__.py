"""The task ``digits``: its prompts, and the classifier that judges its pictures."""
