"""The kernel library: families of generated OpenCL C. Imports nothing of the runtime."""
