"""What a history holds: its files, and the trace that is read back from them."""
