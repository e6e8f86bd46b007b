"""The page: records → runs (ranked, judged) → tables, figures, examples, facts → `report.html`.

No network, readable without JavaScript, light and dark. It reads records and what lies beside them.
"""

from peftlab.report.page.html import NAME, PLOTS, render, write

__all__ = ["NAME", "PLOTS", "render", "write"]
