"""Pure decisions: values in, values out.

Nothing here reads a clock, tosses a coin, opens a file or a socket, or knows a framework. Time and
chance come in as arguments; answers go out as values. Only the standard library's value modules and
msgspec may be imported (`tests/test_house.py` holds this).
"""
