"""A published table run again: a grid of comparisons over tasks and bases in one folder.

`spec` reads a file of `peftlab/experiments` (or the user's), `grid` makes it plans, `run` carries
them out and remembers which run stands in which row.
"""
