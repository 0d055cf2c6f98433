"""Passes over an ONNX graph that change how it computes its function, not the function."""
