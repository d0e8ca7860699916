"""Products, and sums of them: norms, gates and scales apart from what they belong to."""
