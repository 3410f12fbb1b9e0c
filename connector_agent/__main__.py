"""`python -m connector_agent`: the same as the command `connector-agent`."""

from connector_agent.cli import main

main()
