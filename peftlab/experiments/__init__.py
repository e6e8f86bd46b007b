"""A published table run again: a grid of comparisons over tasks and bases in one folder.

`spec` reads one of the YAML files here (bases, tasks, rows, published values) or the user's, `grid`
makes it plans, `run` carries them out, `kept` remembers which run stands in which row.
"""
