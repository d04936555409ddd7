"""The sweep on Ray Tune; what is searched and stored lies in ``gemix.sweep``, without Ray."""
