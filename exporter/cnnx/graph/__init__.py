"""ONNX graphs: loading, export, rewriting, quantization, typing, checking and inspection.

Every function works on `onnx.ModelProto`, and its docstring states whether it edits the model in place or
returns a new one. Only `cnnx.graph.export` imports PyTorch.
"""
