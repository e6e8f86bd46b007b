"""Published tables as plain YAML files, to be run again: bases, tasks, rows, published values."""
