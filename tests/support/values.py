"""Values that many tests share. It imports nothing, so that fuzzing processes can load it quickly."""

PROJECT_ID = "0123456789abcdef0123456789abcdef"
