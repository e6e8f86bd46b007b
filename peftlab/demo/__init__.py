"""The demo: a generated world, its tasks, the bundled model and the script that makes it."""
