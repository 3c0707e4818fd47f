"""Parts of the GPAW host (`backend.gpaw_pw`)."""
