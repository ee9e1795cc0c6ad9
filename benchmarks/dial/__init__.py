"""Which bridge helps at which modality gap."""
