"""The exercises, a file per notebook: each says what is right, what is wrong, and where to look."""
