"""What every test shares: one Hypothesis profile. Fixtures live beside the tests that use them."""

import os

from hypothesis import settings

# No deadline: CI shares its cores, and a slow example is not a wrong one. In CI the examples are the same every time.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("developer", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "developer")
