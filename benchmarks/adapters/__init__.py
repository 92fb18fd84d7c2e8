"""Start helpers of single peers."""
