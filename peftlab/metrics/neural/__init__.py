"""Metrics that need a trained model: BERTScore, MoverScore, BLEURT.

Each follows its paper and is held to a direct implementation of it on a tiny random model. None has
been verified against published values, because that takes the published weights.
"""
