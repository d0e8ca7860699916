"""What an explanation costs, measured in units of a gradient: `python -m benchmarks --help`."""
