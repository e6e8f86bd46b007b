"""Records in, tables and pages out: this room reads what runs left behind, nothing else."""
