"""What `xlm-mlm doctor` looks at, one module for each kind of thing that goes wrong."""
