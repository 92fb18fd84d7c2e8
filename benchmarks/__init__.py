"""What a hop costs, measured beside the least it could cost and beside others. docs/performance.md tells of it."""
