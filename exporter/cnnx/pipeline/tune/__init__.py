"""`tune`: chooses on the device where Q/DQ go, by measured latency under the accuracy gates."""
