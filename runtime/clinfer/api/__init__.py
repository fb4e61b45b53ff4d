"""Words of OpenVINO's Python API beside the runtime's own: types, shapes, tensors, functions.

Nothing here is loaded before it is used, and nothing here computes: it is said in these words what
the rest of clinfer does.
"""
