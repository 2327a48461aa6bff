"""Checks of the notebooks' exercises: each says what is right, what is wrong, and where to look."""
