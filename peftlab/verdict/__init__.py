"""From records and predictions to a verdict: statistics, standings, choices, and their words."""
