"""Lightning callbacks that our experiments add to the host's."""
