"""The edge: registers the package with its host. Reaches the other rooms by dotted name only."""
