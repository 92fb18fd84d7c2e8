"""The pure model: naming, catalogue, policy, calls, lifecycle, and the tables behind subscriptions and tasks."""
