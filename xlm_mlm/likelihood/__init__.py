"""How probable a masked language model finds given tokens."""
