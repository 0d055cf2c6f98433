"""Measures a fleet of Ray nodes on this machine: python -m tools.bench.fleet

Prints the tables of docs/fleet.md. Three parts, each by its name:

- `killed`: five networks in three precisions on four nodes, one of which is killed in the middle; then the
  same on one node. Graphs, ranges and verdicts must be equal, bit for bit.
- `overhead`: the wall time of a survey of a fleet with one node, as a ratio to that of `cnnx survey`, on
  cells of about 10 s.
- `many`: 200 simulated devices on four nodes: cells per second, load and memory of the head.
"""
