"""TensorRT for RTX, which builds without a GPU."""
