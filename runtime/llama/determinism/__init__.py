"""What is promised of llama.cpp's results, and how that is known."""
