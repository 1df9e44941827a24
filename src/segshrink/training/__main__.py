"""``python -m segshrink.training PLACE``: take part in the training of another process of this machine."""

import sys

from segshrink.training.processes import follow

if __name__ == "__main__":
    follow(sys.argv[1])
