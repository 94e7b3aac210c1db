"""`paw compare`: arms x seeds. Which runs (`plan`), making them (`jobs`), what they show
(`results`, `analyse`), and telling it (`tell`, `plots`)."""
