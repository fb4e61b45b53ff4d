"""Products on class "gpu": one schedule for matrices and for convolutions.

    units.py        how a work-item multiplies: rows of data, by name
    walks.py        which element of an operand a tile wants: matrices, windows, panels of weights
    tiles.py        the cuts that a device gets, and which sizes want which
    local_tile.py   the schedule with tiles in local memory, and its split along K
    ends.py         what becomes of a sum: epilogue and store, or a partial sum

`matmul_gpu` and `conv_gpu` say of a product what it is made of (`product.Product`).
"""
