"""`make bench`: each row of the table of speeds in a file of its own; `run_bench.py` runs them."""
