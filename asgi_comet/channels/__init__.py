"""What is sent: channels, their messages, their names and their listeners."""
