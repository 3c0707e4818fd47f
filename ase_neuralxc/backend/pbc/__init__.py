"""Parts of the periodic PySCF host (`backend.periodic`)."""
