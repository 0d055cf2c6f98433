"""A network under load that lasts: many streams at the same time, and hours of running."""
