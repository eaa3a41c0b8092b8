"""Datasets that need no network: boards, star graphs, the user's own text."""
