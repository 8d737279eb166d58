"""Export: the encoders of a run as folders that timm and Hugging Face load.

in   a run folder or a `LoadedRun`, and a new folder
out  config.json, model.safetensors and a model card for each encoder;
     a `Report` of each with the largest difference between the trained and the reloaded encoder
"""

from mvssl.exporting.exporting import Report, export

__all__ = ["Report", "export"]
