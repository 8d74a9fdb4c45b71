"""`python -m affectgpt` is the `affectgpt` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
