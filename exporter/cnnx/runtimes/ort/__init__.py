"""ONNX Runtime, which runs graphs without a build."""
