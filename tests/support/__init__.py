"""What several layers of tests share: private helpers, registries, root file systems."""
