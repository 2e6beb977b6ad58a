"""What users can do: one function for each act, in a file for each noun."""
