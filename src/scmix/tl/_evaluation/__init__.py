"""How `tl.evaluate` works: cells, splits, what a method may see of them, methods, scores."""
