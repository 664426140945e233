"""Everything that touches the world: HTTP, files, the store, clocks, keys.

Whatever is decided is decided in `policies`; this package asks, and does. Arrows point down only:
`app` knows everything, nothing knows `app`.
"""
