"""How does a plan become pixels?

`execute` takes chunks through the steps, `tile` computes one tile of one step, `kernels` do the
arithmetic. `stores` are where activations live, `transfers` bring them to the device and back,
`weights` fetch parameters, `recovery` knows when memory has run out. Nothing is decided here.
"""
