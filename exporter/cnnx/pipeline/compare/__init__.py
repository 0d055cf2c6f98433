"""`compare`: bundles, runs, surveys and reports against a base."""
