"""Lowering rules, one module per kernel family."""
