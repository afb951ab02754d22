"""Stage `filter`: which of the pictures are worth training on, and why each other one is not."""
