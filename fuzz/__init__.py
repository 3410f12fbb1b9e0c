"""Coverage-guided fuzzing of everything that reads bytes from outside; see `python -m fuzz --help`."""
