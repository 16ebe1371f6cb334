"""What is measured: ours, what a team would use or write instead, and the floors below which nobody gets."""
