"""Data contracts: Great Expectations judges, and we say which rows are to blame."""
