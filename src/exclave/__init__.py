"""exclave: data embassies. Registers are sealed at home, held abroad, opened by a quorum, and started abroad."""
