"""The relay: takes pushes from senders and hands them to the tunnel of a connector."""
