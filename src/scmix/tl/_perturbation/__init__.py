"""Rooms behind `tl.perturb`: genes, cells and states, the run, the tables."""
