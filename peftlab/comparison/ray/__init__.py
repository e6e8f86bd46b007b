"""The engine of a Ray cluster: Ray places, retries and cancels; each node holds the base once."""
