"""The store: where jobs, money and the trail are kept.

`contract.py` says what a store can be asked, in complete atomic sentences. `engine.py` answers them
once, over a thin back end (`backend.py` says how thin) that only loads, commits, claims and reads.
"""
