"""Crash safety seen from outside: real processes, real sockets, SIGKILL, and three books to compare.

`serve` runs one life of the gateway and can die at a named point; `nursery` makes lives quickly, and `life`
is one from outside; `grounds` are the stores it stands on, and what can be done to them; `stage` sets all
of it up. `orders` are what clients want, `client` how they behave and `book` what they note; `troubles` is
how upstreams misbehave. `plan` says what happens in a run and `harness` brings it about; `verdict`, with
`books`, `limits` and `recovery`, compares what clients noted, what upstreams were paid for, and what the
store holds. `python -m tests.chaos` runs the `profiles` there are and prints the table.
"""
