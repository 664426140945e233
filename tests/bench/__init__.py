"""Measures Safelight against bare Litestar, as ratios within one run. `make bench` runs it."""
