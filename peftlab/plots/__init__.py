"""Figures as SVG: drawing, scales, axes, labels, colours; for the report and the studies."""
