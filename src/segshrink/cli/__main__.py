"""``python -m segshrink.cli``: the command line without its script."""

import sys

from segshrink.cli import main

if __name__ == "__main__":
    sys.exit(main())
