"""A server for a folder of models: the Open Inference Protocol over REST and gRPC.

    clinfer serve REPOSITORY --port 8000

The extra `serve`; nothing else of clinfer imports it. docs/server.md has the design, the
configuration, the limits and the threats.
"""
