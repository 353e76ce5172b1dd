"""`python -m detray_sim.cli`, for where the command itself is not on the path."""

import sys

from detray_sim.cli import main

sys.exit(main())
