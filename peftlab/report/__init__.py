"""Records in, tables and pages out: this package reads what runs left behind, nothing else."""
