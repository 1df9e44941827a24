"""Meeting a budget: candidates measured first, a few distilled, their files scored, the most accurate chosen.

Free of torch but for ``stages.py``, which does the work.
"""

from segshrink.compression.search.candidates import Candidate, list_candidates
from segshrink.compression.search.search import Outcome, compress
from segshrink.compression.search.tools import Settings, Tools

__all__ = ["Candidate", "Outcome", "Settings", "Tools", "compress", "list_candidates"]
