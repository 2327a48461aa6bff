"""The exercises, a file per notebook: the right answer, cases to try it on, and mistakes with their diagnosis."""
