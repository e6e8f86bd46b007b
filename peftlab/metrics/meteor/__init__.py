"""METEOR 1.5 (Denkowski & Lavie 2014) in Python, on the tables of the official jar.

- `tables` reads the jar's word lists and its paraphrase table;
- `normalize` splits text as the jar's `-norm` does;
- `align` finds matching words and phrases and the beam search's best alignment;
- `score` turns alignments into statistics and statistics into METEOR.
"""
