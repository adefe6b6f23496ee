"""The emulator's control API: faults, rules and settings that tests and people change."""
