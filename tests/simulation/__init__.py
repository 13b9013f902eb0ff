"""The daemon against a simulated world, from one seed: `python -m tests.simulation SEED [HOW_MANY]`."""
