"""How hidden positions are revealed: which, what, and from which random numbers."""
