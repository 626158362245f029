"""All SQL and all files we keep: runs, approvals, ledger, audit, keys, blobs. Only this package writes SQL."""
