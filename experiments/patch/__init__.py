"""Which cells of a network carry the difference between two texts? See figures.py."""
