"""A comparison within a given time: what is measured next, and when enough is known.

`allocation` decides, and knows of no model or clock: whoever drives it (a real comparison, a
simulation, a replay of recorded tables) carries out its steps and tells it the results.
"""
