"""What a bundle consists of, for other tools: a CycloneDX bill of materials, and what a registry needs."""
