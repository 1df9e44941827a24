"""Meeting a budget: candidates measured first, a few distilled, their files scored, the most accurate chosen.

How a candidate is kept or dropped: ``candidates`` (what is looked at, and what is known of it), ``selection`` (which
limits it keeps, which are worth a training) and ``search`` (the steps in order). Free of torch but for ``stages`` and
``candidate_files``, which do the work.
"""

from segshrink.compression.search.candidates import Candidate, list_candidates
from segshrink.compression.search.search import Outcome, Settings, compress

__all__ = ["Candidate", "Outcome", "Settings", "compress", "list_candidates"]
