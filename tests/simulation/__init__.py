"""The daemon against a simulated world, from one seed: `python -m tests.simulation [chain] SEED [HOW_MANY]`."""
