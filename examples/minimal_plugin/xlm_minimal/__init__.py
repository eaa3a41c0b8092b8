"""A model family in miniature: a masked denoiser that fills `[MASK]` tokens.

Nothing is imported here, so that looking for plugins stays fast.
"""
