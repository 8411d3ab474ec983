"""What the command line does, job by job; `cli` parses, the modules here act and report."""
