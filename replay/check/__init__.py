"""`replay check`: rules that every session keeps."""
