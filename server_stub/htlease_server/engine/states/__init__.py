"""States of subjobs in memory, for a server alone and for one of several."""
