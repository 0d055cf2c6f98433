"""Joint search over latency and accuracy for where Q/DQ go. Knows no runtime, graph or file."""
