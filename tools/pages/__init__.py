"""Tables of the documents, written from the recipes and the plans."""
