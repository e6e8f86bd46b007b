"""What carries runs out: processes of this machine, one after the other, or a Ray cluster."""
