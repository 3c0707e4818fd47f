"""Hosts that solve the Kohn-Sham equations for a torch functional."""
