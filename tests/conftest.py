"""What all tests share: how Hypothesis chooses and judges its examples."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A run must not fail by chance, or because the machine is busy: each property has the same examples every time, and
# no example has a time limit. `--hypothesis-profile=search --hypothesis-seed=N` looks for new ones.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")
