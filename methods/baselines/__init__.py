"""Networks that no search found: what every searched sub-network has to beat."""
