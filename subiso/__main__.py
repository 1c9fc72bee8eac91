"""``python -m subiso``: the command line."""

import sys

from subiso.cli import main

if __name__ == "__main__":  # the demo's process pool imports this module again
    sys.exit(main())
