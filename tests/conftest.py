"""How all tests run: the same each time, as well on a machine that is slow or has something else to do, and in
directories of their own.

`pytest --hypothesis-profile=explore` draws other examples each time.
"""

import signal

import pytest
from hypothesis import HealthCheck, settings

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", QUIET, derandomize=True, database=None)
settings.register_profile("explore", QUIET)
settings.load_profile("same")

# A shell without job control starts what runs in the background deaf to Ctrl-C, which tests send to themselves.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_directory(tmp_path_factory):
    """Servers that are started without a directory keep what is saved in the user's: here in one of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield
