"""Benchmarks against peers doing the same work: see `python -m bench.train --help`."""
