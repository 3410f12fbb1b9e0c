"""The main job in one command: senders push real measurements of this machine to a target behind a connector."""
