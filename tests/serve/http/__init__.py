"""Tests of the HTTP server: a real one, and real clients."""
