"""What every backbone is held to, one class of tests per subject; :func:`fewstep.testing.conformance` joins them."""
