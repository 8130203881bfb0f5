"""The model card of a version: facts gathered once (``facts``), laid out (``layout``), written as HTML and Markdown.

Its structure follows Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019); the Markdown carries the metadata
of Hugging Face's model cards in its front matter.
"""
