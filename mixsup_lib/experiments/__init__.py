"""Runs, their records and what is made of them: tables, pictures, comparisons."""
