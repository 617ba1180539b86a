"""What all tests have in common."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_directory(tmp_path_factory):
    """Servers that are started without a directory keep what is saved in the user's: here in one of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield
