"""Windows and pages: layout and wiring only."""
