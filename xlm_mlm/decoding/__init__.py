"""State of the decoding loop, and the way from text to batches and back."""
