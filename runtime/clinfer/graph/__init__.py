"""Graphs: the intermediate representation, the ONNX reader, shapes."""
