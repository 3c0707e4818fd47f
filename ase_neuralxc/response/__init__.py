"""Linear response: excitations and polarisabilities."""
