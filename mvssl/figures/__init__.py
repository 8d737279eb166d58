"""Pictures as matplotlib figures: contact sheets, curves, and the components of a mixture over images.

in   views and a batch, or the folder of a run
out  figures, and `Panel`: how the samples of one column or view are drawn
"""
