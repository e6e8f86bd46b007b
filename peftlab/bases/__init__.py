"""What is known of a base before it is loaded: name, shape, layout, number format, fingerprint."""
