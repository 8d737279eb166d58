"""Pictures: contact sheets, curves, components over images."""
