"""The local page: draw with models side by side, and look at runs. What is here needs gradio only to serve."""
