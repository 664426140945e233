"""Other people's client APIs, spoken by us: one file each, over the same use cases as our own.

A dialect translates a foreign request into the one schema and the job back into foreign words, and
chooses nothing: sizes for ratios, models for aliases, prices and limits are policies'. A job made in one
API is read in any other. What a foreign document fixes (a status, a field, a limit of its own) stands as a
named constant in that dialect's file.
"""
