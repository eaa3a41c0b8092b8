"""Tests that any XLM model plugin can be put through."""
