"""The contenders: each library at a step, at sequences, and at training where it can."""
