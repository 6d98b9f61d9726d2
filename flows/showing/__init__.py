"""What a person or another program gets to see of it: tables, comparisons, exports."""
