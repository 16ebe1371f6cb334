"""``python -P -m verifier``."""

import sys

from verifier.cli import main

if __name__ == "__main__":  # a spawned worker imports this module under another name
    sys.exit(main())
