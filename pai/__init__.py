"""The Algorithm's rules and records: phases, criteria, PRD.md and the journal."""
