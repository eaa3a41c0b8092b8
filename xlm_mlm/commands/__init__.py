"""Job types and the `xlm-mlm` command line."""
