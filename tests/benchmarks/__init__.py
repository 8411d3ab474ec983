"""How much memory, arithmetic and time do exact tiles need, against every peer? `python
tests/benchmarks` prints the answer.
"""
