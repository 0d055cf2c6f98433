"""Classifying images with a bundle: `load` for applications, `classify` for files, folders and cameras."""
