"""A run on disk: its record, the files beside it, and how they are read."""
