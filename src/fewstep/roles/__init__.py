"""Who the networks are: student, teacher, fake score; how one is averaged into another."""
