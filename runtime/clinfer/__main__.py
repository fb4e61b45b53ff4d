"""`python -m clinfer`."""

import sys

from clinfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
