"""Files as people have them (tables, spreadsheets, rows of other tools) as datasets: one is read, another written."""
