"""What runs as the user and shows something: the window and the command line."""
