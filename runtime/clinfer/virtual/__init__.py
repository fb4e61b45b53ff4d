"""Several devices as one: 'AUTO', 'MULTI:', 'HETERO:', 'BATCH:'. docs/devices.md tells what for."""
