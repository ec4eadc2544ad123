"""Models compared by their pictures: prompts, drawing, scores with intervals, one report."""
