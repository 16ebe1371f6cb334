"""What is measured: ours, what a team would use or write instead, and the floors that no side gets below."""
