"""What concerns a site or a workflow as a whole: flags, maintenance, audit."""
