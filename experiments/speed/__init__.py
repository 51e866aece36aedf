"""Programs of several libraries that compute the same, checked and timed side by side."""
