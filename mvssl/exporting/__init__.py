"""Export: the encoders of a run as folders that timm and Hugging Face load.

in   a run folder or a `LoadedRun`, and a new folder
out  config.json, model.safetensors and a model card for each encoder;
     an `ExportedEncoder` of each with the largest difference between the trained and the reloaded encoder
"""

from mvssl.exporting.exporting import ExportedEncoder, export

__all__ = ["ExportedEncoder", "export"]
