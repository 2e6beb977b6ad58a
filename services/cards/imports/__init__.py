"""Cards by file: many made, or given to merchants, each row for itself."""
