"""The artifact store: content keys, manifests, atomic publication, per-key locks."""
