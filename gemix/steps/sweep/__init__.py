"""The sweep without Ray: what a trial does, how a sweep is opened, and what it leaves."""
