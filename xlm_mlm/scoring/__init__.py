"""Texts scored by a saved model."""
