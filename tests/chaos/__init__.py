"""Crash safety seen from outside: real processes, real sockets, SIGKILL, and three books to compare.

`serve` runs one life of the gateway and can die at a named point; `nursery` makes lives quickly; `stage`
sets up folders, fakes and lives; `orders` is what clients ask and note; `harness` kills; `verdict` compares
what clients noted, what upstreams were paid for, and what the store holds. `python -m tests.chaos` runs it
and prints the tables; `FULL=1` makes the run long.
"""
