"""All that touches ONNX: loading, export, rewriting, quantizing, typing, checking and describing graphs.

Every step works on `onnx.ModelProto` and says whether it edits the model it is given or returns a new
one. Nothing here imports PyTorch but `cnnx.graph.export`.
"""
