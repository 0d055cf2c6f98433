"""Image sets: opening them (`sets`), cropping (`crops`) and normalizing (`normalize`)."""
