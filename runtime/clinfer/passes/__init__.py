"""Graph to graph: fold, canonicalise, fuse, layout, verify."""
