"""The course: eight lessons, in the order of their numbers; see README.md."""
