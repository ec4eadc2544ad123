"""Programs that use the package as yours would."""
