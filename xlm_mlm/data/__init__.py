"""Datasets that need no network (4x4 sudoku, star graphs, the user's own text), and tokenizers.

`boards` and `cpu` are no datasets but Lightning callbacks for the runs that use them.
"""
