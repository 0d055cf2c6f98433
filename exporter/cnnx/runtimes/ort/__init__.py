"""ONNX Runtime, which runs graphs as they are."""
