"""The parts of benchmarks/ that are no measurement."""
