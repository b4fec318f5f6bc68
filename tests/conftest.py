"""Settings of all tests."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("map2map", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("map2map")

REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data, or a skip that says where it was looked for."""
    if not REAL.is_dir():
        pytest.skip(f"no real data at {REAL}")
    return REAL
