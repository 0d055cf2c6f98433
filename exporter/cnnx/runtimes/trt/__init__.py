"""TensorRT, which builds engines on the device that runs them."""
