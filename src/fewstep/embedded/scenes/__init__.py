"""The task ``scenes``: its grammar of prompts, and the detector that judges its pictures."""
