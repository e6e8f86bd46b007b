"""The comparison: plan → runs, each in a process and a folder of its own → records → verdict."""
