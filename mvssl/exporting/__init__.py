"""Export: an encoder of a run as a folder that timm and Hugging Face load."""

from mvssl.exporting.exporting import Report, export

__all__ = ["Report", "export"]
