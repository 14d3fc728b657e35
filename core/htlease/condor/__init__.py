"""What HTCondor's files, ads and tools say."""
