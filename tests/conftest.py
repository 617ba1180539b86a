"""How all tests run: the same each time, and as well on a machine that is slow or has something else to do.

`pytest --hypothesis-profile=explore` draws other examples each time.
"""

from hypothesis import HealthCheck, settings

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", QUIET, derandomize=True, database=None)
settings.register_profile("explore", QUIET)
settings.load_profile("same")
