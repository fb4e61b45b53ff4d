"""Devices: discovery, targets, program builds, execution. The only package that touches OpenCL.

Importing it opens nothing; `discover.open_device` does.
"""
