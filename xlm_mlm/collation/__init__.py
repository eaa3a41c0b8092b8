"""Vectorised pieces that the collators share: padding, masking, segments."""
