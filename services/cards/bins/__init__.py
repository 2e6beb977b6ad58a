"""BIN ranges: under which first digits cards are made, of which brand and length, and for whom."""
