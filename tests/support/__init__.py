"""What tests of all kinds share: fixtures, fakes, virtual clocks, scripted flows, certificates."""
