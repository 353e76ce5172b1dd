"""`python -m detray.cli`, for where the command itself is not on the path."""

import sys

from detray.cli import main

sys.exit(main())
