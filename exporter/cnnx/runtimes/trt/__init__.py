"""TensorRT, which builds on the device that it runs on."""
