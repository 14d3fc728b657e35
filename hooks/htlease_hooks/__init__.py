"""The hooks by which HTCondor itself calls htlease; they ride in htlease-ep.pyz."""
