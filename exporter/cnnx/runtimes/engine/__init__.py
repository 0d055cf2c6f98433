"""Code shared by TensorRT and TensorRT for RTX: networks, sessions, CUDA."""
