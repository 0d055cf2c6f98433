"""Passes over an ONNX graph: each takes a graph and changes what it computes with, not what it computes."""
