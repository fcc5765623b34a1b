"""Task rows become training rows: loading, checking, mixing, sampling, collating."""
