"""The passes of `bench` that load a network for long: concurrent streams, and soaks."""
