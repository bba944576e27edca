"""What each operation does to channels: labels, the rules that move them, and the table of rules."""
