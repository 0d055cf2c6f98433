"""Image sets that cnnx makes or ships."""
