"""Image sets that cnnx generates or ships."""
