# SPDX-License-Identifier: LGPL-2.1-only
# Ported in 2026 from METEOR 1.5, Copyright (C) 2004, 2010 Carnegie Mellon University: see NOTICE.
"""METEOR 1.5 (Denkowski & Lavie 2014) in Python, on the tables of the official jar.

- `tables` reads the jar's word lists and its paraphrase table;
- `normalize` splits text as the jar's `-norm` does;
- `align` finds matching words and phrases and the beam search's best alignment;
- `score` turns alignments into statistics and statistics into METEOR.

peftlab finds `METEOR` and `METEOR_COCO` through the entry-point group `peftlab.metrics`.
"""

from peftlab.metrics import MetricSpec

__version__ = "0.1.0"

METEOR = MetricSpec(
    name="meteor",
    description="METEOR 1.5 as its jar scores text with -norm (WebNLG, DART)",
    factory="peftlab_meteor.score:Meteor",
    extra="meteor",
)
METEOR_COCO = MetricSpec(
    name="meteor-coco",
    description="METEOR 1.5 on the COCO evaluation's tokens (E2E's official number)",
    factory="peftlab_meteor.score:Meteor",
    settings=(("coco", True),),
    extra="meteor",
)
