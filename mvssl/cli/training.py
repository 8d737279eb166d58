"""The command `train`; heavy imports stand inside it."""

from mvssl.cli.arguments import Overrides, RecipePath


def train_command(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train a run. The same command continues an existing run at its newest checkpoint.

    Works alone and under `accelerate launch --config_file launch/cpu_2.yaml -m mvssl train RECIPE`.
    """
    from mvssl.process.imports import uncollected_imports
    from mvssl.process.signals import BEFORE_FIRST_STEP, stop_signals

    with stop_signals() as stop, stop.interruptible(BEFORE_FIRST_STEP):
        from mvssl.recipe import load_recipe

        loaded = load_recipe(recipe, overrides or [])  # a mistake in it shows before torch is imported

        with uncollected_imports():
            from mvssl.distributed import collectives
            from mvssl.pipeline.api import train

    train(loaded)
    collectives.close()
