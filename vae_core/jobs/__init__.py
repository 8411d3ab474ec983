"""What does the command line do, job by job?

`options` and `arguments` turn words into settings, `commands`, `roundtrip` and `dataset_commands`
do the work, `file_streams` run the engine from file to file, `report`, `contact_sheet` and
`peak_memory` tell how it went. `cli` parses and prints; nothing here does.
"""
