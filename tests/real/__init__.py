"""What holds on tiny models, on a real one: `make test-real`."""
