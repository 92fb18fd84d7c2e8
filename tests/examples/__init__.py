"""Tests of the example servers, each run as the process it is."""
