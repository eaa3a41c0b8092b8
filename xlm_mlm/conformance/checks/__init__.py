"""The rules themselves, one module for each area. Importing this registers all of them."""

from xlm_mlm.conformance.checks import model  # noqa: F401
