"""How quickly and in how much memory datasets are checked: `python -m benchmarks.validate`."""
