"""`python -m detray.bench`, the same as `detray bench`."""

from __future__ import annotations

import sys

from detray.bench.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
