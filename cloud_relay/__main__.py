"""`python -m cloud_relay`: the same as the command `cloud-relay`."""

from cloud_relay.cli import main

main()
