"""What people reported of gateways and aggregators, as tests: one file per kind."""
