"""How a discrete search finds its next prompt: one file a strategy."""
