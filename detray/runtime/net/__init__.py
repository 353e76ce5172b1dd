"""Links between processes of a cluster: TCP, proved by a token, sessions and bulk bytes on top."""
