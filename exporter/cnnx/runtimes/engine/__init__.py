"""What TensorRT and TensorRT for RTX share: networks, sessions, CUDA."""
