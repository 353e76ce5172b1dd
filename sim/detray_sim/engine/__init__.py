"""Your program in the simulator: real functions in simulated processes, `init(engine="sim")`."""

from detray_sim.engine.session import SimSession as SimSession
from detray_sim.engine.session import start as start
