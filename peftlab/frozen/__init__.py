"""The frozen model: the one room that knows transformers' internals."""
