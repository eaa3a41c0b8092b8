"""Datasets that need no network: 4x4 sudoku, star graphs, the user's own text; and tokenizers."""
