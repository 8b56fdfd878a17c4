"""The realm's root document: who the custodians are and which keys belong to which register."""
