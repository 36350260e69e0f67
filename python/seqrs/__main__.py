"""`python -m seqrs` is the command `seqrs`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
